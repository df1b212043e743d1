"""A Celery application as another team would have it: what its worker ran is a line of output."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from celery import Celery, signals

url, queue = sys.argv[1:3]
app = Celery("shop", broker=url.replace("amqp://", "pyamqp://"))
app.conf.update(
    task_default_queue=queue,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_enable_remote_control=False,  # its queues are of a sort that RabbitMQ 4.3 refuses
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)


@app.task(bind=True, name="shop.order")
def order(self: Any, number: int, *, note: str | None = None) -> None:
    """Tell all that a task can see of its message."""
    request = self.request
    seen = {
        "args": [number, note],
        "id": request.id,
        "eta": request.eta,
        "late_s": 0.0 if request.eta is None else time.time() - _seconds(request.eta),
        "retries": request.retries,
        "priority": request.delivery_info["priority"],
        "headers": {k: v for k, v in (request.headers or {}).items() if k.startswith("x-shop")},
        "expires": request.expires,
    }
    say(seen)


def say(what: object) -> None:
    """A line for the test, which has to find it between Celery's own."""
    print(f"said: {json.dumps(what)}", flush=True)


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


@signals.worker_ready.connect
def tell(**_: object) -> None:
    """The worker has connected."""
    say("ready")


if __name__ == "__main__":
    if sys.argv[3] == "send":
        result = order.apply_async(
            (7,),
            {"note": "ü"},
            countdown=float(sys.argv[4]),
            priority=5,
            expires=600,
            headers={"x-shop-price": 1.5, "x-shop-none": None, "x-shop-table": {"a": [1, None]}},
        )
        say(result.id)
    else:
        app.worker_main(["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip",
                         "--without-mingle", "--without-heartbeat"])  # fmt: skip
