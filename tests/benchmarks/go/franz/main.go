// Kafka from Go with franz-go: produce with promises; polled batches, one commit each.
// Arguments: work, URL, topic, total, size. Prints one line of JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	work, address, topic := os.Args[1], strings.TrimPrefix(os.Args[2], "kafka://"), os.Args[3]
	total, size := must(strconv.Atoi(os.Args[4])), must(strconv.Atoi(os.Args[5]))
	done, seconds := 0, 0.0
	if work == "send_many" {
		done, seconds = sendMany(address, topic, total, size)
	} else {
		done, seconds = receive(address, topic, total)
	}
	rate := float64(done) / seconds
	fmt.Println(string(must(json.Marshal(map[string]any{"done": done, "rate": rate}))))
}

func sendMany(address, topic string, total, size int) (int, float64) {
	client := must(kgo.NewClient(kgo.SeedBrokers(address), kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks())))
	defer client.Close()
	var stored atomic.Int64
	headers := []kgo.RecordHeader{{Key: "tenant", Value: []byte("benchmark")}, {Key: "schema", Value: []byte("v1")}}
	started := time.Now()
	for number := 0; number < total; number++ {
		body := append([]byte(fmt.Sprintf("%012d", number)), bytes.Repeat([]byte("x"), size-12)...)
		record := &kgo.Record{Key: []byte(fmt.Sprintf("key-%d", number%997)), Value: body, Headers: headers}
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
			if err == nil {
				stored.Add(1)
			}
		})
	}
	if err := client.Flush(context.Background()); err != nil {
		log.Fatal(err)
	}
	return int(stored.Load()), time.Since(started).Seconds()
}

func receive(address, topic string, total int) (int, float64) {
	client := must(kgo.NewClient(kgo.SeedBrokers(address), kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit()))
	defer client.Close()
	seen := map[string]bool{}
	var started time.Time
	for len(seen) < total {
		fetches := client.PollRecords(context.Background(), 500)
		if len(seen) == 0 {
			started = time.Now()
		}
		fetches.EachRecord(func(record *kgo.Record) { seen[string(record.Value[:12])] = true })
		if err := client.CommitUncommittedOffsets(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	return len(seen), time.Since(started).Seconds()
}
