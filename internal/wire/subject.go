package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Slots is how many shares all objects are divided into, for ever.
const Slots = 256

// Slot is an object's slot: FNV-1a 32 over class and name token, modulo [Slots]. It is what a NATS server computes for
// the subject mapping {{partition(256,1,2)}}, so a request needs no hop to find its partition.
func Slot(class, token string) int {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	for i := range len(class) {
		h = (h ^ uint32(class[i])) * prime
	}
	for i := range len(token) {
		h = (h ^ uint32(token[i])) * prime
	}
	return int(h % Slots)
}

// Partition is the partition of a slot in a namespace of so many partitions.
func Partition(slot, partitions int) int { return slot % partitions }

// Subjects names everything of one namespace, such as "objects": subjects, streams and the bucket.
type Subjects string

// DefaultNamespace is the namespace where none is configured.
const DefaultNamespace Subjects = "objects"

// Check says what is wrong with a namespace's name: it is an identifier, since it is part of stream names.
func (ns Subjects) Check() error { return CheckIdentifier(string(ns)) }

func (ns Subjects) object(kind string, class, token string) string {
	return string(ns) + "." + kind + "." + strconv.Itoa(Slot(class, token)) + "." + class + "." + token
}

// Journal is the subject of an object's records.
func (ns Subjects) Journal(class, token string) string { return ns.object("journal", class, token) }

// Snap is the subject of an object's snapshot records.
func (ns Subjects) Snap(class, token string) string { return ns.object("snap", class, token) }

// JournalOf matches the records of all objects of a class; of all classes if class is "*".
func (ns Subjects) JournalOf(class string) string { return string(ns) + ".journal.*." + class + ".*" }

// SnapOf matches the snapshot records of all objects of a class; of all classes if class is "*".
func (ns Subjects) SnapOf(class string) string { return string(ns) + ".snap.*." + class + ".*" }

// Epoch is the subject of a partition's epochs and releases.
func (ns Subjects) Epoch(p int) string { return string(ns) + ".epoch." + strconv.Itoa(p) }

// Fence is the subject of a partition's fillers.
func (ns Subjects) Fence(p int) string { return string(ns) + ".fence." + strconv.Itoa(p) }

// Checkpoint is the subject of a partition's checkpoints; reserved.
func (ns Subjects) Checkpoint(p int) string { return string(ns) + ".check." + strconv.Itoa(p) }

// Send is the public subject of a durable message to a method.
func (ns Subjects) Send(class, token, method string) string {
	return string(ns) + ".send." + class + "." + token + "." + method
}

// Sends matches the public subjects of all durable messages.
func (ns Subjects) Sends() string { return string(ns) + ".send.*.*.*" }

// SlottedSends is where the server's mapping sends durable messages that a worker is to store: pattern and what to add.
func (ns Subjects) SlottedSends() string { return string(ns) + ".part.*.send.*.*.*" }

// SendMapping is the server's subject mapping for servers whose process syncs the log itself: a worker then receives what
// is sent, stores it and acknowledges when it is on disk.
func (ns Subjects) SendMapping() (from, to string) {
	return ns.Sends(), string(ns) + ".part.{{partition(256,1,2)}}.send.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
}

// Inbox is the name of the stream of durable messages.
func (ns Subjects) Inbox() string { return string(ns) + "-inbox" }

// InboxTransform is the inbox's own subject transform: it puts the slot into what was published on [Subjects.Sends].
func (ns Subjects) InboxTransform() (from, to string) {
	return ns.Sends(), string(ns) + ".inbox.{{partition(256,1,2)}}.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
}

// InboxMessage is the subject of a message in the inbox.
func (ns Subjects) InboxMessage(class, token, method string) string {
	return ns.object("inbox", class, token) + "." + method
}

// InboxSlot matches the messages to the objects of a slot.
func (ns Subjects) InboxSlot(slot int) string {
	return string(ns) + ".inbox." + strconv.Itoa(slot) + ".*.*.*"
}

// InboxAll matches all messages in the inbox.
func (ns Subjects) InboxAll() string { return string(ns) + ".inbox.*.*.*.*" }

// InboxOf matches the messages to one object.
func (ns Subjects) InboxOf(class, token string) string {
	return ns.object("inbox", class, token) + ".*"
}

// Dead is the subject of the dead letter that the message at a position of the inbox became.
func (ns Subjects) Dead(class, token string, seq uint64) string {
	return ns.object("dead", class, token) + "." + strconv.FormatUint(seq, 10)
}

// DeadOf matches the dead letters of one object.
func (ns Subjects) DeadOf(class, token string) string { return ns.object("dead", class, token) + ".*" }

// DeadAll matches all dead letters.
func (ns Subjects) DeadAll() string { return string(ns) + ".dead.*.*.*.*" }

// SplitInbox takes the subject of a message in the inbox apart. ok is false if the slot is not that of the object.
func (ns Subjects) SplitInbox(subject string) (slot int, class, token, method string, ok bool) {
	rest, ok := strings.CutPrefix(subject, string(ns)+".inbox.")
	if !ok {
		return 0, "", "", "", false
	}
	number, rest, _ := strings.Cut(rest, ".")
	slot, class, token, method, ok = splitSlotted(number, rest)
	return slot, class, token, method, ok && slot == Slot(class, token)
}

// Change is the subject on which an object's records are published again, if the namespace asks for it.
func (ns Subjects) Change(class, token string) string {
	return string(ns) + ".change." + class + "." + token
}

// Republish is what a stream publishes again: the subjects of records, and those of changes.
func (ns Subjects) Republish() (from, to string) {
	return ns.JournalOf("*"), string(ns) + ".change.{{wildcard(2)}}.{{wildcard(3)}}"
}

// Stream is the name of a partition's stream.
func (ns Subjects) Stream(p int) string { return string(ns) + "-" + strconv.Itoa(p) }

// Bucket is the name of the namespace's key-value bucket.
func (ns Subjects) Bucket() string { return string(ns) + "-meta" }

// StreamSubjects is what a partition's stream captures: its epochs, fillers and checkpoints, and the records, snapshots
// and due times of its slots.
func (ns Subjects) StreamSubjects(p, partitions int) []string {
	subjects := []string{ns.Epoch(p), ns.Fence(p), ns.Checkpoint(p)}
	for slot := p; slot < Slots; slot += partitions {
		for _, kind := range []string{"journal", "snap", "due"} {
			subjects = append(subjects, fmt.Sprintf("%s.%s.%d.*.*", ns, kind, slot))
		}
	}
	return subjects
}

// Call is the public subject of a method.
func (ns Subjects) Call(class, token, method string) string {
	return string(ns) + ".call." + class + "." + token + "." + method
}

// Calls matches the public subjects of all methods.
func (ns Subjects) Calls() string { return string(ns) + ".call.*.*.*" }

// Read is the public subject of a read that a standby's copy may answer: what [Subjects.Call] is for [Subjects.ReadAt].
func (ns Subjects) Read(class, token, method string) string {
	return string(ns) + ".read." + class + "." + token + "." + method
}

// Reads matches the public subjects of all such reads.
func (ns Subjects) Reads() string { return string(ns) + ".read.*.*.*" }

// ReadMapping is what [Subjects.Mapping] is for them.
func (ns Subjects) ReadMapping() (from, to string) {
	return ns.Reads(),
		string(ns) + ".part.{{partition(256,1,2)}}.read.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
}

// SplitPublic takes the public subject of a method apart: <ns>.call.<class>.<token>.<method>, or of [Subjects.Read].
func (ns Subjects) SplitPublic(subject string) (read bool, class, token, method string, ok bool) {
	rest, call := strings.CutPrefix(subject, string(ns)+".call.")
	if !call {
		rest, read = strings.CutPrefix(subject, string(ns)+".read.")
	}
	parts := strings.Split(rest, ".")
	if !call && !read || len(parts) != 3 {
		return false, "", "", "", false
	}
	return read, parts[0], parts[1], parts[2], true
}

// Mapping is the server's subject mapping that sends public calls to their slots: source and destination.
func (ns Subjects) Mapping() (from, to string) {
	return ns.Calls(),
		string(ns) + ".part.{{partition(256,1,2)}}.call.{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}"
}

// SlotCalls matches the calls for a slot, as owners subscribe to them.
func (ns Subjects) SlotCalls(slot int) string { return fmt.Sprintf("%s.part.%d.call.*.*.*", ns, slot) }

// CallAt is the subject of a method in its object's slot: where the server's mapping sends what comes on [Subjects.Call].
func (ns Subjects) CallAt(class, token, method string) string {
	return ns.part("call", class, token) + "." + method
}

// HTTP is the subject of whole HTTP requests to an object, in its slot.
func (ns Subjects) HTTP(class, token string) string { return ns.part("http", class, token) }

// ReadAt is the subject of a read that a standby's copy may answer as well as the owner, in its object's slot.
func (ns Subjects) ReadAt(class, token, method string) string {
	return ns.part("read", class, token) + "." + method
}

// SlotReads matches such reads for a slot, as owners and standbys subscribe to them.
func (ns Subjects) SlotReads(slot int) string { return fmt.Sprintf("%s.part.%d.read.*.*.*", ns, slot) }

func (ns Subjects) part(kind, class, token string) string {
	return fmt.Sprintf("%s.part.%d.%s.%s.%s", ns, Slot(class, token), kind, class, token)
}

// SlotHTTP matches the HTTP requests for a slot, as owners subscribe to them.
func (ns Subjects) SlotHTTP(slot int) string { return fmt.Sprintf("%s.part.%d.http.*.*", ns, slot) }

// Cancel is where gateways say that the caller of an HTTP request in a slot has left.
func (ns Subjects) Cancel(slot int) string { return fmt.Sprintf("%s.part.%d.cancel", ns, slot) }

// Admin is the subject of a question that wakes nothing: state, journal, objects, classes.
func (ns Subjects) Admin(what string) string { return string(ns) + ".admin." + what }

// AskPart is the subject of such a question to the owner of a partition.
func (ns Subjects) AskPart(p int, what string) string {
	return fmt.Sprintf("%s.control.part.%d.%s", ns, p, what)
}

// AskWorker is the subject of a question to a worker about itself.
func (ns Subjects) AskWorker(id, what string) string {
	return string(ns) + ".control.worker." + id + "." + what
}

// Owner is where it is told that a partition, of so many, has a new owner: who waits for what the former one owes asks again.
func (ns Subjects) Owner(p, of int) string { return fmt.Sprintf("%s.owner.%d.%d", ns, p, of) }

// Owners matches that of all partitions.
func (ns Subjects) Owners() string { return string(ns) + ".owner.*.*" }

// Words matches what workers tell each other to save time: that a partition was released, or a lease changed.
func (ns Subjects) Words() string { return string(ns) + ".control.word.*" }

// Life is where a life of a worker answers probes.
func (ns Subjects) Life(worker, nonce string) string {
	return string(ns) + ".control.life." + worker + "." + nonce
}

// Object is the class and name token of a subject of the kinds journal, snap and due, in the slot that they give.
func (ns Subjects) Object(subject string) (class, token string, ok bool) {
	_, slot, class, token, ok := ns.SplitObject(subject)
	if !ok || slot != strconv.Itoa(Slot(class, token)) {
		return "", "", false
	}
	return class, token, true
}

// SplitObject takes a subject of an object apart, whatever slot it names: <ns>.<kind>.<slot>.<class>.<token>, of the
// kinds journal, snap and due.
func (ns Subjects) SplitObject(subject string) (kind, slot, class, token string, ok bool) {
	rest, ok := strings.CutPrefix(subject, string(ns)+".")
	kind, rest, _ = strings.Cut(rest, ".")
	slot, rest, _ = strings.Cut(rest, ".")
	class, token, four := strings.Cut(rest, ".")
	if !ok || !four || strings.Contains(token, ".") || kind != "journal" && kind != "snap" && kind != "due" {
		return "", "", "", "", false
	}
	return kind, slot, class, token, true
}

// SplitCall takes a slot's call subject apart: <ns>.part.<slot>.call.<class>.<token>.<method>.
func (ns Subjects) SplitCall(subject string) (slot int, class, token, method string, ok bool) {
	return ns.splitPart(subject, "call.")
}

// SplitRead takes the subject of [Subjects.ReadAt] apart: <ns>.part.<slot>.read.<class>.<token>.<method>.
func (ns Subjects) SplitRead(subject string) (slot int, class, token, method string, ok bool) {
	return ns.splitPart(subject, "read.")
}

func (ns Subjects) splitPart(subject, kind string) (slot int, class, token, method string, ok bool) {
	rest, ok := strings.CutPrefix(subject, string(ns)+".part.")
	number, rest, _ := strings.Cut(rest, ".")
	rest, fits := strings.CutPrefix(rest, kind)
	if !ok || !fits {
		return 0, "", "", "", false
	}
	return splitSlotted(number, rest)
}

// SplitHTTP takes the subject of an HTTP request apart: <ns>.part.<slot>.http.<class>.<token>.
func (ns Subjects) SplitHTTP(subject string) (slot int, class, token string, ok bool) {
	rest, ok := strings.CutPrefix(subject, string(ns)+".part.")
	number, rest, _ := strings.Cut(rest, ".")
	rest, http := strings.CutPrefix(rest, "http.")
	if !ok || !http || strings.Count(rest, ".") != 1 {
		return 0, "", "", false
	}
	slot, class, token, _, ok = splitSlotted(number, rest+".")
	return slot, class, token, ok
}

// splitSlotted takes a slot, and <class>.<token>.<method> apart.
func splitSlotted(number, rest string) (slot int, class, token, method string, ok bool) {
	class, rest, _ = strings.Cut(rest, ".")
	token, method, two := strings.Cut(rest, ".")
	slot, err := strconv.Atoi(number)
	if !two || err != nil || slot < 0 || slot >= Slots || len(number) > 1 && number[0] == '0' || number[0] == '+' || strings.Contains(method, ".") {
		return 0, "", "", "", false
	}
	return slot, class, token, method, true
}
