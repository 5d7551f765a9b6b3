// A member of a group by franz-go. See tests/python/groups/member.py for what it is told and says.
package main

import (
	"context"
	"errors"
	"log"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ringlog/tests/line"
)

var balancers = map[string]kgo.GroupBalancer{
	"range":              kgo.RangeBalancer(),
	"cooperative-sticky": kgo.CooperativeStickyBalancer(),
}

type member struct {
	options line.Options
	client  *kgo.Client
	lock    sync.Mutex
	held    map[line.Partition]bool
	ends    map[line.Partition]int64
}

func list(partitions map[string][]int32) []line.Partition {
	all := []line.Partition{}
	for topic, numbers := range partitions {
		for _, number := range numbers {
			all = append(all, line.Partition{Topic: topic, Partition: number})
		}
	}
	return all
}

func mapped(partitions []line.Partition) map[string][]int32 {
	all := map[string][]int32{}
	for _, p := range partitions {
		all[p.Topic] = append(all[p.Topic], p.Partition)
	}
	return all
}

func (m *member) assigned(_ context.Context, _ *kgo.Client, added map[string][]int32) {
	m.lock.Lock()
	defer m.lock.Unlock()
	for _, p := range list(added) {
		m.held[p] = true
	}
	m.say()
}

func (m *member) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	m.lock.Lock()
	defer m.lock.Unlock()
	line.Say("revoked", map[string]any{"partitions": list(lost)})
	for _, p := range list(lost) {
		delete(m.held, p)
		delete(m.ends, p)
	}
	m.say()
}

func (m *member) say() {
	all := []line.Partition{}
	for p := range m.held {
		all = append(all, p)
	}
	line.Say("assigned", map[string]any{"partitions": all})
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func main() {
	options, commands := line.Start()
	m := &member{options: options, held: map[line.Partition]bool{}, ends: map[line.Partition]int64{}}
	settings := []kgo.Opt{
		kgo.SeedBrokers(options.Bootstrap), kgo.ConsumerGroup(options.Group), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(balancers[options.Strategy]),
		kgo.SessionTimeout(ms(options.SessionMs)), kgo.HeartbeatInterval(ms(options.HeartbeatMs)),
		kgo.MetadataMaxAge(ms(options.MetadataMs)), kgo.MetadataMinAge(ms(options.MetadataMs) / 2), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.OnPartitionsAssigned(m.assigned), kgo.OnPartitionsRevoked(m.revoked), kgo.OnPartitionsLost(m.revoked),
	}
	if options.Pattern != "" {
		settings = append(settings, kgo.ConsumeRegex(), kgo.ConsumeTopics(options.Pattern))
	} else {
		settings = append(settings, kgo.ConsumeTopics(options.Topics...))
	}
	if options.Instance != "" {
		settings = append(settings, kgo.InstanceID(options.Instance))
	}
	client, err := kgo.NewClient(settings...)
	if err != nil {
		log.Fatal(err)
	}
	m.client = client
	for {
		m.poll()
		select {
		case command := <-commands:
			if command.Do == "close" {
				client.LeaveGroup()
				client.Close()
				command.Reply(nil)
				return
			}
			m.obey(command)
		default:
		}
	}
}

func (m *member) poll() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	fetches := m.client.PollRecords(ctx, 500)
	for _, failed := range fetches.Errors() {
		if !errors.Is(failed.Err, context.DeadlineExceeded) {
			if errors.Is(failed.Err, kerr.FencedInstanceID) {
				line.Say("fatal", map[string]any{"error": failed.Err.Error()})
			}
			log.Print(failed.Err)
		}
	}
	records := [][]any{}
	m.lock.Lock()
	fetches.EachRecord(func(r *kgo.Record) {
		records = append(records, []any{r.Topic, r.Partition, r.Offset, string(r.Value)})
		m.ends[line.Partition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
	})
	m.lock.Unlock()
	if len(records) > 0 {
		line.Say("records", map[string]any{"records": records})
	}
}

func (m *member) offsets() map[string]map[int32]kgo.EpochOffset {
	m.lock.Lock()
	defer m.lock.Unlock()
	all := map[string]map[int32]kgo.EpochOffset{}
	for p, offset := range m.ends {
		if all[p.Topic] == nil {
			all[p.Topic] = map[int32]kgo.EpochOffset{}
		}
		all[p.Topic][p.Partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	return all
}

func said(offsets map[string]map[int32]kgo.EpochOffset) map[string]any {
	all := [][]any{}
	for topic, partitions := range offsets {
		for partition, offset := range partitions {
			all = append(all, []any{topic, partition, offset.Offset})
		}
	}
	return map[string]any{"offsets": all}
}

// commit commits, and answers when the broker has; `wait` holds everything else up until then.
func (m *member) commit(wait bool, command line.Command) {
	offsets := m.offsets()
	done := make(chan struct{})
	m.client.CommitOffsets(context.Background(), offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
		defer close(done)
		if err == nil {
			for _, topic := range response.Topics {
				for _, partition := range topic.Partitions {
					if err == nil {
						err = kerr.ErrorForCode(partition.ErrorCode)
					}
				}
			}
		}
		if err != nil {
			command.Fail(err)
		} else {
			command.Reply(said(offsets))
		}
	})
	if wait {
		<-done
	}
}

func (m *member) obey(command line.Command) {
	switch command.Do {
	case "produce":
		m.produce(command)
		return
	case "commit":
		m.commit(true, command)
		return
	case "commit_async":
		m.commit(false, command)
		return
	case "pause":
		m.client.PauseFetchPartitions(mapped(command.List))
	case "resume":
		m.client.ResumeFetchPartitions(mapped(command.List))
	case "seek":
		m.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{
			command.Partition.Topic: {command.Partition.Partition: {Epoch: -1, Offset: command.Offset}},
		})
	case "lag":
		m.lag(command)
		return
	}
	command.Reply(nil)
}

func (m *member) produce(command line.Command) {
	var lock sync.Mutex
	var failed error
	delivered := [][]any{}
	for number, value := range command.Values {
		record := &kgo.Record{Topic: command.Topic, Partition: int32(number) % command.Count, Value: []byte(value)}
		m.client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			lock.Lock()
			defer lock.Unlock()
			if err != nil {
				failed = err
			}
			delivered = append(delivered, []any{r.Topic, r.Partition, r.Offset, string(r.Value)})
		})
	}
	if err := m.client.Flush(context.Background()); err != nil {
		failed = err
	}
	if failed != nil {
		command.Fail(failed)
		return
	}
	command.Reply(map[string]any{"delivered": delivered})
}

func (m *member) lag(command line.Command) {
	lags, err := kadm.NewClient(m.client).Lag(context.Background(), m.options.Group)
	if err == nil {
		err = lags.Error()
	}
	if err != nil {
		command.Fail(err)
		return
	}
	all := [][]any{}
	for topic, partitions := range lags[m.options.Group].Lag {
		for partition, lag := range partitions {
			all = append(all, []any{topic, partition, lag.Lag})
		}
	}
	command.Reply(map[string]any{"lag": all})
}
