package wire

import (
	"fmt"
	"hash/fnv"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The vectors are what nats-server computes: the tests of internal/embed compare Slot with a running server. They can
// never change, since every stored subject contains its slot.
func TestSlotsAreFixedForEver(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		class, name string
		want        int
	}{
		{"counter", "x", 65},
		{"counter", "checkout-cart-99", 77},
		{"cart", "a.b", 254},
		{"cart", "%", 99},
		{"account", "äöü", 34},
		{"room", "日本語", 220},
		{"limiter", "🦀", 43},
		{"limiter", "10.0.0.1", 19},
		{"counter", " ", 208},
		{"counter", "*", 19},
		{"counter", "\x00", 226},
		{"c", "ounterx", 65},
		{"Rate-Limit_2", "key", 59},
	} {
		token := Escape(v.name)
		if got := Slot(v.class, token); got != v.want {
			t.Errorf("Slot(%q, %q) is %d, want %d", v.class, token, got, v.want)
		}
		h := fnv.New32a()
		h.Write([]byte(v.class + token))
		if got := int(h.Sum32() % Slots); got != v.want {
			t.Errorf("FNV-1a of %q modulo %d is %d, want %d", v.class+token, Slots, got, v.want)
		}
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	ns := DefaultNamespace
	token := Escape("a.b")
	for got, want := range map[string]string{
		ns.Journal("counter", token):        "objects.journal.122.counter.a%2Eb",
		ns.Snap("counter", token):           "objects.snap.122.counter.a%2Eb",
		ns.Call("counter", token, "addOne"): "objects.call.counter.a%2Eb.addOne",
		ns.JournalOf("counter"):             "objects.journal.*.counter.*",
		ns.Epoch(3):                         "objects.epoch.3",
		ns.Fence(3):                         "objects.fence.3",
		ns.Stream(3):                        "objects-3",
		ns.Bucket():                         "objects-meta",
		ns.SlotCalls(3):                     "objects.part.3.call.*.*.*",
		ns.CallAt("counter", token, "get"):  "objects.part.122.call.counter.a%2Eb.get",
		ns.SlotHTTP(3):                      "objects.part.3.http.*.*",
		ns.HTTP("counter", token):           "objects.part.122.http.counter.a%2Eb",
		ns.SlotReads(3):                     "objects.part.3.read.*.*.*",
		ns.ReadAt("counter", token, "get"):  "objects.part.122.read.counter.a%2Eb.get",
		ns.Read("counter", token, "get"):    "objects.read.counter.a%2Eb.get",
		ns.Owner(3, 16):                     "objects.owner.3.16",
		ns.Cancel(3):                        "objects.part.3.cancel",
		ns.Admin("state"):                   "objects.admin.state",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	for kind, mapping := range map[string]func() (string, string){"call": ns.Mapping, "read": ns.ReadMapping} {
		if from, to := mapping(); from != "objects."+kind+".*.*.*" ||
			to != "objects.part.{{partition(256,1,2)}}."+kind+".{{wildcard(1)}}.{{wildcard(2)}}.{{wildcard(3)}}" {
			t.Errorf("the mapping is %s to %s", from, to)
		}
	}
}

func TestEverySlotBelongsToOneStream(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 3, 4, 16, Slots} {
		owner := map[string]int{}
		for p := range partitions {
			for _, subject := range DefaultNamespace.StreamSubjects(p, partitions) {
				if other, ok := owner[subject]; ok {
					t.Errorf("of %d partitions, %d and %d both capture %s", partitions, other, p, subject)
				}
				owner[subject] = p
			}
		}
		if want := 3*partitions + 3*Slots; len(owner) != want {
			t.Errorf("%d partitions capture %d subjects, want %d", partitions, len(owner), want)
		}
		for slot := range Slots {
			subject := fmt.Sprintf("objects.journal.%d.*.*", slot)
			if p, ok := owner[subject]; !ok || p != Partition(slot, partitions) {
				t.Errorf("of %d partitions, %d captures %s, want %d", partitions, p, subject, Partition(slot, partitions))
			}
		}
	}
	want := []string{"objects.epoch.255", "objects.fence.255", "objects.check.255",
		"objects.journal.255.*.*", "objects.snap.255.*.*", "objects.due.255.*.*"}
	if diff := cmp.Diff(want, DefaultNamespace.StreamSubjects(255, 256)); diff != "" {
		t.Errorf("subjects of a stream (-want +got):\n%s", diff)
	}
}

func TestObjectIsReadBackFromItsSubjects(t *testing.T) {
	t.Parallel()
	ns := Subjects("my-objects")
	for _, name := range []string{"x", "a.b", "%", "日本"} {
		for _, subject := range []string{ns.Journal("counter", Escape(name)), ns.Snap("counter", Escape(name))} {
			class, token, ok := ns.Object(subject)
			if got, err := Unescape(token); !ok || class != "counter" || got != name || err != nil {
				t.Errorf("Object(%s) is %q, %q, %v (%v)", subject, class, token, ok, err)
			}
		}
	}
	for _, subject := range []string{
		"", "my-objects", "my-objects.epoch.3", "objects.journal.3.counter.x", "my-objectsx.journal.3.counter.x",
		"my-objects.journal.3.counter", "my-objects.journal.3.counter.x.y", "my-objects.part.3.call.counter.x.addOne",
	} {
		if class, token, ok := ns.Object(subject); ok {
			t.Errorf("Object(%s) is %q, %q", subject, class, token)
		}
	}
}

func TestSplitCallTakesApartWhatTheMappingMakes(t *testing.T) {
	t.Parallel()
	ns := DefaultNamespace
	slot, class, token, method, ok := ns.SplitCall("objects.part.255.call.counter.a%2Eb.addOne")
	got := []any{slot, class, token, method, ok}
	if want := []any{255, "counter", "a%2Eb", "addOne", true}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, subject := range []string{
		"", "objects.part", "objects.part.3", "objects.part.3.call", "objects.part.3.call.counter", "objects.part.3.call.counter.x",
		"objects.part.3.read.counter.x.addOne", "objects.part.x.call.counter.x.addOne", "objects.part..call.counter.x.addOne", "objects.part.3.http.counter.x.get",
		"objects.call.counter.x.addOne", "other.part.3.call.counter.x.addOne", "objects.journal.3.counter.x",
	} {
		if _, _, _, _, ok := ns.SplitCall(subject); ok {
			t.Errorf("SplitCall takes %q for a call", subject)
		}
	}
}

func TestSplitReadTakesApartWhatReadAtMakes(t *testing.T) {
	t.Parallel()
	ns := DefaultNamespace
	slot, class, token, method, ok := ns.SplitRead(ns.ReadAt("counter", "a%2Eb", "value"))
	got := []any{slot, class, token, method, ok}
	if want := []any{122, "counter", "a%2Eb", "value", true}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, _, _, _, ok := ns.SplitRead(ns.CallAt("counter", "a%2Eb", "value")); ok {
		t.Error("SplitRead takes a call for a read")
	}
}

func TestSplitHTTPTakesApartWhatGatewaysWrite(t *testing.T) {
	t.Parallel()
	ns := DefaultNamespace
	slot, class, token, ok := ns.SplitHTTP(ns.HTTP("counter", "a%2Eb"))
	if got, want := []any{slot, class, token, ok}, []any{122, "counter", "a%2Eb", true}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, subject := range []string{
		"", "objects.part.3.http", "objects.part.3.http.counter", "objects.part.3.http.counter.x.y", "objects.part.256.http.counter.x",
		"objects.part.03.http.counter.x", "objects.part.3.call.counter.x", "other.part.3.http.counter.x", "objects.part.3.call.counter.x.get",
	} {
		if _, _, _, ok := ns.SplitHTTP(subject); ok {
			t.Errorf("SplitHTTP takes %q for a request", subject)
		}
	}
}

func TestNamespaceIsAnIdentifier(t *testing.T) {
	t.Parallel()
	if err := DefaultNamespace.Check(); err != nil {
		t.Error(err)
	}
	for _, ns := range []Subjects{"", "a.b", "a b", "*", ">", "$JS", "1"} {
		if ns.Check() == nil {
			t.Errorf("%q passes for a namespace", ns)
		}
	}
}
