package drill

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Commands is a system that is disturbed by commands of its operator's, and by nothing else. In each, {} stands for the
// target's name. No shell reads them: they are split at spaces.
type Commands struct {
	List []Target
	By   map[Act]string
}

// Targets implements [System].
func (c *Commands) Targets() []Target { return c.List }

// Do implements [System].
func (c *Commands) Do(ctx context.Context, act Act, t Target) error {
	words := strings.Fields(c.By[act])
	if len(words) == 0 {
		return fmt.Errorf("there is no command to %s %s", act, t)
	}
	for i, w := range words {
		words[i] = strings.ReplaceAll(w, "{}", t.Name)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	out, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); ran {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	if err != nil {
		return fmt.Errorf("%s %s: %s: %w", act, t, strings.Join(words, " "), err)
	}
	return nil
}
