package drill

// Fault is a kind of [Finding]; the package's comment has them all.
type Fault string

// The faults.
const (
	Lost       Fault = "lost"
	Twice      Fault = "applied twice"
	OutOfOrder Fault = "out of order"
	Unasked    Fault = "unasked"
	State      Fault = "state"
	Journal    Fault = "journal"
)

// Finding is something that must not be.
type Finding struct {
	Fault  Fault  `json:"fault"`
	Object string `json:"object,omitempty"` // class/name
	Call   string `json:"call,omitempty"`   // the request's id
	What   string `json:"what"`
}

// FindingsMax is how many findings are told; the numbers count all.
const FindingsMax = 1000

type findings struct {
	count map[Fault]int
	told  []Finding
}

func (f *findings) add(one Finding) {
	if f.count == nil {
		f.count = map[Fault]int{}
	}
	f.count[one.Fault]++
	if len(f.told) < FindingsMax {
		f.told = append(f.told, one)
	}
}
