package drill

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is what a target is.
type Kind string

// The kinds.
const (
	Worker  Kind = "worker"
	Server  Kind = "server"
	Gateway Kind = "gateway"
)

// Kinds are all kinds.
var Kinds = []Kind{Worker, Server, Gateway}

// Target is a process that may be disturbed.
type Target struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

func (t Target) String() string { return string(t.Kind) + "/" + t.Name }

// ParseTarget reads kind/name.
func ParseTarget(s string) (Target, error) {
	kind, name, _ := strings.Cut(s, "/")
	if t := (Target{Kind(kind), name}); name != "" && slices.Contains(Kinds, t.Kind) {
		return t, nil
	}
	return Target{}, fmt.Errorf("%q is no target; want KIND/NAME, such as worker/w1; the kinds are worker, server and gateway", s)
}

// Act is what is done to a target.
type Act string

// The acts. A kill is followed by a restart, a pause by its end.
const (
	Kill     Act = "kill"     // SIGKILL
	Restart  Act = "restart"  // it runs again
	Pause    Act = "pause"    // SIGSTOP
	Continue Act = "continue" // SIGCONT
)

// Schedule says how often what is disturbed, and how.
type Schedule struct {
	For   time.Duration // how long the load goes on
	Every time.Duration // from one disturbance to the next, on the average
	Down  time.Duration // from a kill to the restart
	Pause time.Duration // how long a pause lasts; 0: there are none
	Kills bool          // there are kills; with Pause too, chance decides each time
}

// Step is one disturbance of a plan.
type Step struct {
	At     time.Duration `json:"at"` // from the load's begin, or later, if the one before is not over
	Target Target        `json:"target"`
	Act    Act           `json:"act"`  // kill or pause
	Long   time.Duration `json:"long"` // until its counterpart
}

// NewPlan draws a plan from a seed. The same seed, schedule and targets give the same plan.
func NewPlan(seed uint64, s Schedule, targets []Target) []Step {
	var acts []Act
	if s.Kills {
		acts = append(acts, Kill)
	}
	if s.Pause > 0 {
		acts = append(acts, Pause)
	}
	if len(acts) == 0 || len(targets) == 0 || s.Every <= 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(seed, seed))
	var plan []Step
	for at := time.Duration(0); ; {
		// Half of it is certain, and the mean is right.
		at += s.Every/2 + time.Duration(random.Int64N(int64(s.Every)))
		step := Step{At: at, Target: targets[random.IntN(len(targets))], Act: acts[random.IntN(len(acts))], Long: s.Down}
		if step.Act == Pause {
			step.Long = s.Pause
		}
		// What comes back after the load would not be seen to come back.
		if at+step.Long+s.Every/2 > s.For {
			return plan
		}
		plan = append(plan, step)
	}
}
