package doctor

import "fmt"

// Status is how a check ended.
type Status string

// What a check may say.
const (
	OK     Status = "ok"
	Warn   Status = "warn"   // it costs speed, or data in a rare case
	Bad    Status = "bad"    // it costs data, or something is not served
	Unseen Status = "unseen" // it cannot be seen from here; the fix says how
)

// Finding is what one check says of one thing.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	What   string `json:"what"`
	Fix    string `json:"fix,omitempty"` // absent if all is well
}

// said is a finding without the name of its check.
func said(s Status, fix, what string, args ...any) Finding {
	return Finding{Status: s, What: fmt.Sprintf(what, args...), Fix: fix}
}

func fine(what string, args ...any) []Finding { return []Finding{said(OK, "", what, args...)} }

func one(s Status, fix, what string, args ...any) []Finding {
	return []Finding{said(s, fix, what, args...)}
}

// named gives findings the name of their check.
func named(check string, list []Finding) []Finding {
	for i := range list {
		list[i].Check = check
	}
	return list
}
