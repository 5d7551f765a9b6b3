// A member of a group by sarama. See tests/python/groups/member.py for what it is told and says.
package main

import (
	"context"
	"errors"
	"log"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"ringlog/tests/line"
)

type member struct {
	options line.Options
	config  *sarama.Config
	group   sarama.ConsumerGroup
	lock    sync.Mutex
	session sarama.ConsumerGroupSession
	ends    map[line.Partition]int64
	last    []line.Partition
}

func list(claims map[string][]int32) []line.Partition {
	all := []line.Partition{}
	for topic, partitions := range claims {
		for _, partition := range partitions {
			all = append(all, line.Partition{Topic: topic, Partition: partition})
		}
	}
	return all
}

// Setup begins a generation.
func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = session
	m.last = list(session.Claims())
	line.Say("assigned", map[string]any{"partitions": m.last})
	return nil
}

// Cleanup ends it.
func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.session = nil
	m.ends = map[line.Partition]int64{}
	line.Say("revoked", map[string]any{"partitions": m.last})
	return nil
}

// ConsumeClaim reads one partition while the generation lasts.
func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.lock.Lock()
			m.ends[line.Partition{Topic: message.Topic, Partition: message.Partition}] = message.Offset + 1
			m.lock.Unlock()
			line.Say("records", map[string]any{"records": [][]any{{message.Topic, message.Partition, message.Offset, string(message.Value)}}})
		case <-session.Context().Done():
			return nil
		}
	}
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func main() {
	options, commands := line.Start()
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	// Its commit without waiting is the one in the background, of what was marked since.
	config.Consumer.Offsets.AutoCommit.Enable = options.Commits == "async"
	config.Consumer.Offsets.AutoCommit.Interval = 200 * time.Millisecond
	config.Consumer.Group.Session.Timeout = ms(options.SessionMs)
	config.Consumer.Group.Heartbeat.Interval = ms(options.HeartbeatMs)
	config.Consumer.Group.InstanceId = options.Instance
	config.Consumer.Return.Errors = true
	config.Metadata.RefreshFrequency = ms(options.MetadataMs)
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	group, err := sarama.NewConsumerGroup([]string{options.Bootstrap}, options.Group, config)
	if err != nil {
		log.Fatal(err)
	}
	m := &member{options: options, config: config, group: group, ends: map[line.Partition]int64{}}
	go func() {
		for err := range group.Errors() {
			log.Print(err)
		}
	}()
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			err := group.Consume(ctx, options.Topics, m)
			if errors.Is(err, sarama.ErrFencedInstancedId) {
				line.Say("fatal", map[string]any{"error": err.Error()})
			}
			if err != nil {
				log.Print(err)
				time.Sleep(200 * time.Millisecond)
			}
		}
	}()
	for command := range commands {
		if command.Do == "close" {
			stop()
			<-stopped
			if err := group.Close(); err != nil {
				command.Fail(err)
			} else {
				command.Reply(nil)
			}
			return
		}
		m.obey(command)
	}
}

func (m *member) obey(command line.Command) {
	partitions := map[string][]int32{}
	for _, p := range command.List {
		partitions[p.Topic] = append(partitions[p.Topic], p.Partition)
	}
	switch command.Do {
	case "produce":
		m.produce(command)
		return
	case "commit":
		m.commit(command, true)
		return
	case "commit_async":
		m.commit(command, false)
		return
	case "pause":
		m.group.Pause(partitions)
	case "resume":
		m.group.Resume(partitions)
	case "lag":
		m.lag(command)
		return
	}
	command.Reply(nil)
}

// commit marks what was read, and commits it or leaves that to the background. That it worked shows in what the broker then has.
func (m *member) commit(command line.Command, waits bool) {
	m.lock.Lock()
	session, wanted := m.session, map[line.Partition]int64{}
	for p, offset := range m.ends {
		wanted[p] = offset
	}
	m.lock.Unlock()
	if session == nil {
		command.Fail(errors.New("no session"))
		return
	}
	for p, offset := range wanted {
		session.MarkOffset(p.Topic, p.Partition, offset, "")
	}
	if waits {
		session.Commit()
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		committed, err := m.committed(list(session.Claims()))
		if err != nil {
			command.Fail(err)
			return
		}
		all, isDone := [][]any{}, true
		for p, offset := range wanted {
			all = append(all, []any{p.Topic, p.Partition, committed[p]})
			isDone = isDone && committed[p] == offset
		}
		if isDone || waits || time.Now().After(end) {
			command.Reply(map[string]any{"offsets": all})
			return
		}
	}
}

func (m *member) committed(partitions []line.Partition) (map[line.Partition]int64, error) {
	admin, err := sarama.NewClusterAdmin([]string{m.options.Bootstrap}, m.config)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	asked := map[string][]int32{}
	for _, p := range partitions {
		asked[p.Topic] = append(asked[p.Topic], p.Partition)
	}
	response, err := admin.ListConsumerGroupOffsets(m.options.Group, asked)
	if err != nil {
		return nil, err
	}
	offsets := map[line.Partition]int64{}
	for _, p := range partitions {
		block := response.GetBlock(p.Topic, p.Partition)
		if block == nil || block.Err != sarama.ErrNoError {
			return nil, errors.New("no committed offset")
		}
		offsets[p] = block.Offset
	}
	return offsets, nil
}

func (m *member) produce(command line.Command) {
	producer, err := sarama.NewAsyncProducer([]string{m.options.Bootstrap}, m.config)
	if err != nil {
		command.Fail(err)
		return
	}
	go func() {
		for number, value := range command.Values {
			producer.Input() <- &sarama.ProducerMessage{
				Topic: command.Topic, Partition: int32(number) % command.Count, Value: sarama.StringEncoder(value), Metadata: value,
			}
		}
	}()
	delivered := [][]any{}
	for range command.Values {
		select {
		case message := <-producer.Successes():
			delivered = append(delivered, []any{message.Topic, message.Partition, message.Offset, message.Metadata})
		case failed := <-producer.Errors():
			err = failed
		}
	}
	if closing := producer.Close(); err == nil {
		err = closing
	}
	if err != nil {
		command.Fail(err)
		return
	}
	command.Reply(map[string]any{"delivered": delivered})
}

func (m *member) lag(command line.Command) {
	committed, err := m.committed(command.List)
	if err != nil {
		command.Fail(err)
		return
	}
	client, err := sarama.NewClient([]string{m.options.Bootstrap}, m.config)
	if err != nil {
		command.Fail(err)
		return
	}
	defer client.Close()
	all := [][]any{}
	for _, p := range command.List {
		end, err := client.GetOffset(p.Topic, p.Partition, sarama.OffsetNewest)
		if err != nil {
			command.Fail(err)
			return
		}
		all = append(all, []any{p.Topic, p.Partition, end - committed[p]})
	}
	command.Reply(map[string]any{"lag": all})
}
