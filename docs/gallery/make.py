"""Make the gallery's reports from real runs: ``make gallery``. Starts and stops its own brokers."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gearshift import compare
from native_brokers import Kafka, RabbitMQ

HERE = Path(__file__).parent
COLUMNS = ("rabbit:queue", "rabbit:stream", "kafka:stream", "kafka:queue")


def main() -> None:
    """Both reports, each drawn again from itself to the byte."""
    keep(compare.run(), "embedded.html")
    with RabbitMQ() as rabbitmq, Kafka() as kafka, tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "gearshift.toml"
        settings.write_text(
            f'profile = "rabbit"\n[profiles.rabbit]\nbackend = "rabbitmq"\nurl = "{rabbitmq.url}"\n'
            f'[profiles.kafka]\nbackend = "kafka"\nbootstrap_servers = ["{kafka.url}"]\n'
        )
        keep(compare.run(COLUMNS, config=settings), "rabbitmq-kafka.html")


def keep(found: compare.Comparison, name: str) -> None:
    """Write the report and check that it holds all that it was drawn from."""
    file = HERE / name
    found.save(file)
    if compare.Comparison.load(file).html().encode() != file.read_bytes():
        raise SystemExit(f"{name} is not what its own ledger draws")
    print(f"{name}: {file.stat().st_size:,} bytes in {found.ledger.meta.duration_s:g} s")
    print(found.decision.sentence)


if __name__ == "__main__":
    main()
