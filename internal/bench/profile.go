package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// profileFor is how long each profile is taken, in a load of its own: none of it is in the figures.
const profileFor = 3 * time.Second

// profiles are what is taken of the system under a load, one after the other.
var profiles = []string{"cpu", "block", "mutex", "allocs"}

// profile takes profiles of the system under a load: <row>.<side>.<profile>.pb.gz in the folder.
func (b *bench) profile(ctx context.Context, r *Row, side string, load *runner) error {
	if b.Profile == "" {
		return nil
	}
	for _, name := range profiles {
		err := b.during(ctx, r, side, name, load.system, func() error {
			_, err := load.run(ctx, profileFor+200*time.Millisecond)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// during runs f, and takes a profile meanwhile if profiles are asked for.
func (b *bench) during(ctx context.Context, r *Row, side, name string, s *process, f func() error) error {
	if b.Profile == "" {
		return f()
	}
	fetched := make(chan error, 1)
	go func() {
		fetched <- s.fetchProfile(ctx, name, filepath.Join(b.Profile, r.Name+"."+side+"."+name+".pb.gz"))
	}()
	err := f()
	if err2 := <-fetched; err == nil && err2 != nil {
		err = fmt.Errorf("%s profile: %w", name, err2)
	}
	return err
}

func (s *process) fetchProfile(ctx context.Context, name, file string) error {
	url := fmt.Sprintf("http://%s%s%s?seconds=%d", s.yard, pprofPath, name, profileFor/time.Second)
	switch name {
	case "cpu":
		url = strings.Replace(url, "cpu", "profile", 1)
	case "heap":
		url, _, _ = strings.Cut(url, "?") // what is there, not what came
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
