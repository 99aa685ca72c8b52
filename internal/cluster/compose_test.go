package cluster

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const root = "../.."

// compose is what docker-compose.yml says, as far as we use it: a key that is not here is a mistake in one of the two.
type compose struct {
	t           *testing.T
	Name        string               `yaml:"name"`
	Nats        any                  `yaml:"x-nats"`
	Environment any                  `yaml:"x-nats-environment"`
	Perdure     any                  `yaml:"x-perdure"`
	Services    map[string]service   `yaml:"services"`
	Volumes     map[string]*struct{} `yaml:"volumes"`
}

type service struct {
	Image string `yaml:"image"`
	Build struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	Restart     string            `yaml:"restart"`
	Grace       string            `yaml:"stop_grace_period"`
	Healthcheck struct {
		Test     []string `yaml:"test"`
		Interval string   `yaml:"interval"`
		Timeout  string   `yaml:"timeout"`
		Retries  int      `yaml:"retries"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	c := compose{t: t}
	text := must[[]byte](t)(os.ReadFile(filepath.Join(root, "docker-compose.yml")))
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	check(t, d.Decode(&c))
	return c
}

// kind are the services of a kind: their names begin with it.
func (c compose) kind(prefix string) map[string]service {
	c.t.Helper()
	found := map[string]service{}
	for name, s := range c.Services {
		if strings.HasPrefix(name, prefix) {
			found[name] = s
		}
	}
	if len(found) == 0 {
		c.t.Fatalf("no service %s", prefix)
	}
	return found
}

func TestComposeIsThreeServersTwoWorkersTwoGateways(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for prefix, want := range map[string]int{"nats": 3, "worker": 2, "gateway": 2} {
		if got := len(c.kind(prefix)); got != want {
			t.Errorf("%d of %s; want %d", got, prefix, want)
		}
	}
	used := map[string]string{} // ports and volumes, each by one service
	take := func(name, what string) {
		if used[what] != "" {
			t.Errorf("%s and %s both have %s", used[what], name, what)
		}
		used[what] = name
	}
	for name, s := range c.Services {
		if s.Restart != "unless-stopped" || s.Grace == "" {
			t.Errorf("%s: restart %q, grace %q", name, s.Restart, s.Grace)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to strangers, whom nobody asks who they are", name, p)
			}
			take(name, p[:strings.LastIndex(p, ":")])
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, ".") {
				_ = must[os.FileInfo](t)(os.Stat(filepath.Join(root, source)))
				continue
			}
			take(name, source)
			if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
		for other, d := range s.DependsOn {
			if o, ok := c.Services[other]; !ok || d.Condition != "service_healthy" || len(o.Healthcheck.Test) == 0 {
				t.Errorf("%s waits for %s, which cannot say that it is healthy", name, other)
			}
		}
	}
	for name := range c.Volumes {
		if used[name] == "" {
			t.Errorf("nobody uses the volume %s", name)
		}
	}
}

func TestComposeServersAreOneCluster(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	mod := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, "go.mod"))))
	version := regexp.MustCompile(`nats-server/v2 v(\S+)`).FindStringSubmatch(mod)[1]
	servers := c.kind("nats")
	for name, s := range servers {
		if want := "nats:" + version + "-alpine"; s.Image != want {
			t.Errorf("%s is %s, and our module's server is %s", name, s.Image, want)
		}
		if s.Environment["NATS_NAME"] != name {
			t.Errorf("%s is called %s", name, s.Environment["NATS_NAME"])
		}
		for other := range servers {
			if route := "nats://" + other + ":" + s.Environment["NATS_CLUSTER_PORT"]; !strings.Contains(s.Environment["NATS_ROUTES"], route) {
				t.Errorf("%s does not look for %s", name, route)
			}
		}
		if probe := "http://127.0.0.1:" + s.Environment["NATS_MONITOR_PORT"] + "/healthz"; !slices.Contains(s.Healthcheck.Test, probe) {
			t.Errorf("%s: %v does not ask %s", name, s.Healthcheck.Test, probe)
		}
		stored := func(v string) bool { return v == name+":"+s.Environment["NATS_STORE"] }
		if !slices.ContainsFunc(s.Volumes, stored) {
			t.Errorf("%s: %v do not keep %s", name, s.Volumes, s.Environment["NATS_STORE"])
		}
	}
}
func TestComposeCommandsAreThoseOfTheProgram(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	path := must[string](t)(program())
	for name, s := range c.Services {
		if s.Build.Dockerfile == "" {
			continue
		}
		_ = must[os.FileInfo](t)(os.Stat(filepath.Join(root, s.Build.Context, s.Build.Dockerfile)))
		for server := range c.kind("nats") {
			if _, waits := s.DependsOn[server]; !waits || !strings.Contains(s.Environment["NATS_URL"], "nats://"+server+":4222") {
				t.Errorf("%s does not know %s, or does not wait for it", name, server)
			}
		}
		out, err := exec.Command(path, s.Command[0], "--help").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "perdure "+s.Command[0]) {
			t.Fatalf("%s: perdure %s: %v\n%s", name, s.Command[0], err, out)
		}
		for _, arg := range s.Command[1:] {
			if strings.HasPrefix(arg, "--") && !strings.Contains(string(out), arg+" ") {
				t.Errorf("%s: perdure %s has no %s", name, s.Command[0], arg)
			}
		}
	}
}
