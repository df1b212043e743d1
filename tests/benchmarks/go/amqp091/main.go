// RabbitMQ from Go with amqp091: publishes pipelined with deferred confirms; each message acked.
// Arguments: work, URL, queue, total, size. Prints one line of JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const window = 2000

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	work, url, queue := os.Args[1], os.Args[2], os.Args[3]
	total, size := must(strconv.Atoi(os.Args[4])), must(strconv.Atoi(os.Args[5]))
	connection := must(amqp.Dial(url))
	defer connection.Close()
	channel := must(connection.Channel())
	done, seconds := 0, 0.0
	if work == "send_many" {
		done, seconds = sendMany(channel, queue, total, size)
	} else {
		done, seconds = receive(channel, queue, total)
	}
	rate := float64(done) / seconds
	fmt.Println(string(must(json.Marshal(map[string]any{"done": done, "rate": rate}))))
}

func sendMany(channel *amqp.Channel, queue string, total, size int) (int, float64) {
	if err := channel.Confirm(false); err != nil {
		log.Fatal(err)
	}
	open := make(chan *amqp.DeferredConfirmation, window)
	stored := make(chan int)
	go func() {
		count := 0
		for confirm := range open {
			if confirm.Wait() {
				count++
			}
		}
		stored <- count
	}()
	started := time.Now()
	for number := 0; number < total; number++ {
		body := append([]byte(fmt.Sprintf("%012d", number)), bytes.Repeat([]byte("x"), size-12)...)
		open <- must(channel.PublishWithDeferredConfirmWithContext(context.Background(), "", queue, true, false,
			amqp.Publishing{
				Headers:      amqp.Table{"key": fmt.Sprintf("key-%d", number%997), "tenant": "benchmark", "schema": "v1"},
				DeliveryMode: amqp.Persistent,
				Body:         body,
			}))
	}
	close(open)
	return <-stored, time.Since(started).Seconds()
}

func receive(channel *amqp.Channel, queue string, total int) (int, float64) {
	if err := channel.Qos(500, 0, false); err != nil {
		log.Fatal(err)
	}
	messages := must(channel.Consume(queue, "", false, false, false, false, nil))
	seen := map[string]bool{}
	var started time.Time
	var last amqp.Delivery
	for last = range messages {
		if len(seen) == 0 {
			started = time.Now()
		}
		seen[string(last.Body[:12])] = true
		if len(seen) == total {
			break
		}
		if err := last.Ack(false); err != nil {
			log.Fatal(err)
		}
	}
	seconds := time.Since(started).Seconds()
	// While a quorum queue is busy, acks wait in the broker's end of the AMQP channel and are lost
	// with it. What is given back comes again once they are through.
	if err := last.Nack(false, true); err != nil {
		log.Fatal(err)
	}
	again := <-messages
	if err := again.Ack(false); err != nil {
		log.Fatal(err)
	}
	return len(seen), seconds
}
