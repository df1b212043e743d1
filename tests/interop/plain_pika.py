"""The classic RabbitMQ task queue with pika alone. Run as a program; it knows no other library.

python plain_pika.py send URL QUEUE COUNT           tasks to the queue, default exchange
python plain_pika.py work URL QUEUE COUNT           print COUNT order ids, acknowledging each
python plain_pika.py publish URL EXCHANGE KEY COUNT tasks to an exchange
"""

from __future__ import annotations

import json
import sys

import pika


def tasks(count: str) -> list[str]:
    return [json.dumps({"task": "process_order", "order_id": 123 + n}) for n in range(int(count))]


def send(channel, queue, count):  # type: ignore[no-untyped-def]
    channel.queue_declare(queue=queue, durable=True)
    publish(channel, "", queue, count)


def publish(channel, exchange, key, count):  # type: ignore[no-untyped-def]
    for task in tasks(count):
        properties = pika.BasicProperties(delivery_mode=2)
        channel.basic_publish(exchange=exchange, routing_key=key, body=task, properties=properties)


def work(channel, queue, count):  # type: ignore[no-untyped-def]
    channel.queue_declare(queue=queue, durable=True)
    channel.basic_qos(prefetch_count=1)
    remaining = int(count)

    def on_message(ch, method, properties, body):  # type: ignore[no-untyped-def]
        nonlocal remaining
        task = json.loads(body)
        print(task["task"], task["order_id"], flush=True)
        ch.basic_ack(delivery_tag=method.delivery_tag)
        remaining -= 1
        if not remaining:
            ch.stop_consuming()

    channel.basic_consume(queue=queue, on_message_callback=on_message)
    channel.start_consuming()


def main() -> None:
    verb, url, *arguments = sys.argv[1:]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    {"send": send, "work": work, "publish": publish}[verb](connection.channel(), *arguments)
    connection.close()


if __name__ == "__main__":
    main()
