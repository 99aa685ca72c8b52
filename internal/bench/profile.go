package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// profileFor is how long each profile is taken, in a load of its own: none of it is in the figures.
const profileFor = 3 * time.Second

// profiles are what is taken of the system under a load, one after the other.
var profiles = []string{"cpu", "block", "mutex", "allocs"}

// profile takes profiles of the system under a load: <row>.<side>.<profile>.pb.gz in the folder.
func (b *bench) profile(ctx context.Context, r *Row, side string, s *System, run func(ctx context.Context, long time.Duration) (Load, error)) error {
	if b.Profile == "" {
		return nil
	}
	for _, name := range profiles {
		failed := make(chan error, 1)
		go func() {
			failed <- s.fetchProfile(ctx, name, filepath.Join(b.Profile, r.Name+"."+side+"."+name+".pb.gz"))
		}()
		_, err := run(ctx, profileFor+200*time.Millisecond)
		if fetched := <-failed; err == nil {
			err = fetched
		}
		if err != nil {
			return fmt.Errorf("%s profile: %w", name, err)
		}
	}
	return nil
}

func (s *System) fetchProfile(ctx context.Context, name, file string) error {
	if name == "cpu" {
		name = "profile"
	}
	url := fmt.Sprintf("http://%s%s%s?seconds=%d", s.Yard, pprofPath, name, profileFor/time.Second)
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
