package verify

import "github.com/perdure/perdure/journal"

// checkpoint takes a message on the checkpoint subject: how far the messages to the partition's objects are answered.
func (c *Checker) checkpoint(m journal.Message) {
	if !c.counts(m, "") {
		return
	}
	cp, err := journal.DecodeCheckpoint(m.Data)
	if err != nil {
		c.severe(m.Seq, "", Format, "%v", err)
		return
	}
	was, now := c.inbox, cp.Inbox
	switch {
	case now.Life < was.Life:
		c.severe(m.Seq, "", Checkpoint, "it is of the inbox's life %d, and the one before it of life %d", now.Life, was.Life)
	case now.Life == was.Life && now.Cursor < was.Cursor:
		c.severe(m.Seq, "", Checkpoint, "it says that the inbox is answered up to message %d, and the one before it says %d", now.Cursor, was.Cursor)
	}
	for _, h := range now.Held {
		if h.First > now.Cursor || h.First == 0 {
			c.severe(m.Seq, "", Checkpoint, "messages to %s are held from %d on, and its cursor is %d: none before it is", named(h.Class, h.Token), h.First, now.Cursor)
		} else if h.Last < h.First || h.Last > now.Cursor {
			c.severe(m.Seq, "", Checkpoint, "messages to %s are held from %d to %d, and its cursor is %d", named(h.Class, h.Token), h.First, h.Last, now.Cursor)
		}
	}
	c.inbox = now
}
