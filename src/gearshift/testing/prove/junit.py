"""A proof as JUnit's XML: a test case for each misfortune."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from gearshift.testing.prove.story import Proof, Verdict

__all__ = ["junit"]


def junit(proof: Proof, name: str) -> bytes:
    """``proof`` of the app ``name``: a failure for each story, an error for what cannot be said."""
    stories = {story.rule: story for story in proof.stories}
    suite = Xml.Element("testsuite", name=f"gearshift prove {name} on {proof.profile}")
    for rule in proof.rules:
        case = Xml.SubElement(suite, "testcase", classname=name, name=rule)
        if rule in stories:
            Xml.SubElement(case, "failure", message=stories[rule].because).text = str(stories[rule])
    if proof.verdict is Verdict.CANNOT_BE_SAID:
        case = Xml.SubElement(suite, "testcase", classname=name, name="verdict")
        Xml.SubElement(case, "error", message=proof.sentence)
    failures, errors = len(suite.findall(".//failure")), len(suite.findall(".//error"))
    suite.attrib |= {"tests": str(len(suite)), "failures": str(failures), "errors": str(errors)}
    whole: bytes = Xml.tostring(suite, encoding="utf-8", xml_declaration=True)
    return whole
