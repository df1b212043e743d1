"""The command line: install the brokers, say what is missing, or run them."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from native_brokers import (
    Broker,
    BrokerUnavailable,
    Kafka,
    Kafka43,
    RabbitMQ,
    RabbitMQ40,
    RabbitMQ43,
    Redis,
)
from native_brokers.prometheus import PROMETHEUS
from native_brokers.software import CHROMIUM, OPENSSL, Software

_KINDS: dict[str, type[Broker]] = {
    "rabbitmq": RabbitMQ,
    "kafka": Kafka,
    "kafka4.3": Kafka43,
    "rabbitmq4.3": RabbitMQ43,
    "rabbitmq4.0": RabbitMQ40,
    "redis": Redis,
}
_VARIABLES: dict[str, str] = {
    "rabbitmq": "RABBITMQ_URL",
    "kafka": "KAFKA_BOOTSTRAP",
    "kafka4.3": "KAFKA_BOOTSTRAP",
    "rabbitmq4.3": "RABBITMQ_URL",
    "rabbitmq4.0": "RABBITMQ_URL",
    "redis": "REDIS_URL",
}
#: What `make test` starts; `make conformance` starts them all.
_TESTED = ("rabbitmq", "rabbitmq4.3", "kafka", "redis")
_BOTH = ("rabbitmq", "kafka")


def main(arguments: Sequence[str]) -> int:
    """Do what `arguments` say and return the exit code; blocks while brokers run."""
    own, separator, command = _split(arguments)
    options = _parser().parse_args(own)
    if separator and (options.action != "run" or not command):
        _parser().error("a COMMAND goes after `run --`")
    names = [options.only] if options.only else list(_BOTH)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.action == "missing":
            _say_missing([options.only] if options.only else _TESTED)
        if options.action == "install":
            for name in names:
                _KINDS[name].install()
        if options.action == "run":
            with _started(names) as environment:
                return _run(command, environment) if command else _serve(environment)
    except BrokerUnavailable as error:
        print(f"native_brokers: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return list(arguments), False, []
    at = arguments.index("--")
    return list(arguments[:at]), True, list(arguments[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m native_brokers",
        description="Real RabbitMQ and Kafka on this machine, without containers.",
        epilog="missing says what `make test` would have to fetch, or tests on --only. "
        "run -- COMMAND ... runs COMMAND beside the brokers and exits with its code.",
    )
    parser.add_argument("action", choices=["install", "missing", "run"])
    parser.add_argument("--only", choices=list(_KINDS), help="this one alone")
    return parser


def _say_missing(names: Sequence[str]) -> None:
    """Print a line for each piece of software that tests on these brokers would fetch."""
    wanted: list[Software] = [each for name in names for each in _KINDS[name].software()]
    for each in dict.fromkeys([*wanted, OPENSSL, CHROMIUM, PROMETHEUS]):
        if not each.is_there():
            print(f"will be fetched: {each.title}", flush=True)


@contextmanager
def _started(names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Run the brokers while the block runs; yields the variables that tell where they are."""
    brokers = {name: _KINDS[name]() for name in names}
    with ExitStack() as stack:
        for broker in brokers.values():
            stack.callback(broker.stop)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Broker.start, brokers.values()))
        yield {_VARIABLES[name]: broker.url for name, broker in brokers.items()}


def _serve(environment: dict[str, str]) -> int:
    try:
        for variable, value in environment.items():
            print(f"export {variable}={value}", flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return 0


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    try:
        child = subprocess.Popen(command, env={**os.environ, **environment})
    except OSError as error:
        print(f"native_brokers: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def pass_on(number: int, _: object) -> None:
        child.send_signal(number)

    # A terminal sends Ctrl-C to the command as well; what to make of it is for the command to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
