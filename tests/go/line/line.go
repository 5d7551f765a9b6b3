// Package line is what the Go members share: their options, commands from stdin, events to stdout. See
// tests/python/groups/member.py for what is said.
package line

import (
	"bufio"
	"encoding/json"
	"log"
	"os"
	"sync"
)

// Partition is a topic's name and a partition's number.
type Partition struct {
	Topic     string
	Partition int32
}

// MarshalJSON makes it [topic, partition].
func (p Partition) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{p.Topic, p.Partition})
}

// UnmarshalJSON reads [topic, partition].
func (p *Partition) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&p.Topic, &p.Partition})
}

// Options are a member's.
type Options struct {
	Bootstrap   string   `json:"bootstrap"`
	Group       string   `json:"group"`
	Topics      []string `json:"topics"`
	Pattern     string   `json:"pattern"`
	Instance    string   `json:"instance"`
	Strategy    string   `json:"strategy"`
	Commits     string   `json:"commits"`
	SessionMs   int      `json:"session_ms"`
	HeartbeatMs int      `json:"heartbeat_ms"`
	MetadataMs  int      `json:"metadata_ms"`
}

// Command is what a member is told.
type Command struct {
	ID        int         `json:"id"`
	Do        string      `json:"do"`
	Topic     string      `json:"topic"`
	Values    []string    `json:"values"`
	Count     int32       `json:"-"`
	List      []Partition `json:"-"`
	Partition Partition   `json:"partition"`
	Offset    int64       `json:"offset"`
}

// UnmarshalJSON reads a command; "partitions" is a count for produce, a list elsewhere.
func (c *Command) UnmarshalJSON(data []byte) error {
	type plain Command
	if err := json.Unmarshal(data, (*plain)(c)); err != nil {
		return err
	}
	var rest struct {
		Partitions json.RawMessage `json:"partitions"`
	}
	if err := json.Unmarshal(data, &rest); err != nil || rest.Partitions == nil {
		return err
	}
	if c.Do == "produce" {
		return json.Unmarshal(rest.Partitions, &c.Count)
	}
	return json.Unmarshal(rest.Partitions, &c.List)
}

var out sync.Mutex

// Say tells the test of an event.
func Say(event string, what map[string]any) {
	if what == nil {
		what = map[string]any{}
	}
	what["event"] = event
	text, err := json.Marshal(what)
	if err != nil {
		log.Fatal(err)
	}
	out.Lock()
	defer out.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

// Reply answers a command.
func (c Command) Reply(what map[string]any) {
	if what == nil {
		what = map[string]any{}
	}
	what["id"] = c.ID
	Say("reply", what)
}

// Fail answers a command that did not work.
func (c Command) Fail(err error) {
	c.Reply(map[string]any{"error": err.Error()})
}

// Start reads the options and begins to read commands. The last one, when the test is gone, is to close.
func Start() (Options, <-chan Command) {
	var options Options
	if err := json.Unmarshal([]byte(os.Args[1]), &options); err != nil {
		log.Fatal(err)
	}
	commands := make(chan Command)
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var command Command
			if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
				log.Fatal(err)
			}
			commands <- command
		}
		commands <- Command{Do: "close"}
	}()
	return options, commands
}
