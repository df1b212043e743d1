"""Plain words for every level of every capability, and for the two semantics."""

from __future__ import annotations

from gearshift.message import Semantics

__all__ = ["LARGEST", "SEMANTICS", "SENTENCES", "Value"]

Value = bool | str | int

#: Capability → level → what that means for whoever writes the service. Weakest level first.
SENTENCES: dict[str, dict[Value, str]] = {
    "redelivery": {
        False: "Work that a dead consumer left unfinished is lost.",
        True: "Work that a dead consumer left unfinished comes again.",
    },
    "native_retry": {
        False: "A retried message stays in its consumer's hand; its key waits, other keys go on.",
        True: "A retried message goes back to the broker, and any consumer may get it next.",
    },
    "native_delay": {
        False: "A message that waits for its retry is held by its consumer, not by the broker.",
        True: "A message that waits for its retry waits in the broker, and outlives its consumer.",
    },
    "dead_letter": {
        False: "A message that is given up is logged and dropped.",
        True: "A message that is given up moves to the dead letters before it is settled.",
    },
    "fan_out": {
        False: "Only one group gets each message.",
        True: "Every group gets every message.",
    },
    "replay": {
        False: "What is settled is gone; a new group gets what is sent from then on.",
        True: "What is settled can be read again; a new group may begin at the first message.",
    },
    "seek": {
        False: "A consumer cannot go back or ahead.",
        True: "A consumer can go to the start, the end, an offset or a moment.",
    },
    "purge": {
        False: "What waits for a group cannot be thrown away.",
        True: "What waits for a group can be thrown away.",
    },
    "ephemeral_group": {
        False: "Nobody can look on without leaving a group behind.",
        True: "One can look on (tail) and leave nothing behind.",
    },
    "unroutable_detected": {
        False: "A message that nobody would receive is accepted all the same.",
        True: "A message that nobody would receive is refused when it is sent.",
    },
    "tombstone": {
        False: "Every message has a body; None is refused.",
        True: "A message may have no body (None), which marks its key as deleted.",
    },
    "depth": {
        False: "How much waits for a group is unknown.",
        True: "How much waits for a group is known.",
    },
    "durable_group": {
        False: "A group's progress is forgotten with its last consumer.",
        True: "A group's progress outlives its consumers.",
    },
    "order": {
        "none": "Messages come in any order, those of one key too.",
        "single_consumer": "Messages come as sent as long as the group has one consumer only.",
        "key": "Messages of one key come as sent, with any number of consumers.",
    },
    "redelivered": {
        "none": "Whether a message was delivered before is unknown: be idempotent on its id.",
        "hint": "A message marked as redelivered may be new: be idempotent on its id.",
        "exact": "A message that was delivered before is marked so.",
    },
    "attempt": {
        "none": "Attempts are counted by the consumer that has the message; a crash starts anew.",
        "hint": "Attempts are counted, and may be too high after a crash.",
        "exact": "Attempts are counted exactly, across crashes.",
    },
    "prefetch": {
        "soft": "The client asks for about as many messages as prefetch; the broker may send more.",
        "strict": "A consumer never holds more unsettled messages than prefetch.",
    },
    "durability": {
        "nothing": "Messages live in this process and end with it.",
        "process": "Messages outlive every client, but not a broker that is killed.",
        "broker_restart": "Messages and progress outlive a broker that is killed and restarted.",
    },
    "lease": {
        "fixed": "Work that takes longer than the broker's limit goes to another consumer as well.",
        "held": "Work may take as long as it likes while its process lives.",
    },
    "members": {
        "partitions": "At most as many consumers of a group work at once as there are partitions.",
        "any": "Any number of consumers of a group work at once.",
    },
    "max_message_bytes": {},
}

#: Of ``max_message_bytes``.
LARGEST = "A message may have {:,} bytes, with key and headers."

#: What a channel is, in a sentence each.
SEMANTICS = {
    Semantics.QUEUE: "Each message is settled by itself, and is then gone for its group.",
    Semantics.STREAM: "A log of messages; a group has a position in it, and settling removes none.",
}
