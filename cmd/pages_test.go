package cmd

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestTheTourOfTheReadme pastes the README's tour into a shell, line by line, against a fresh `perdure dev`, which is
// killed where the README says so.
func TestTheTourOfTheReadme(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	s := newShell(t, p.http, p.nats)
	for _, b := range s.blocks("README.md") {
		if strings.Contains(b.before, "kill -9") && strings.Contains(b.before, "start it again") {
			p.kill()
			p.begin()
		}
		s.paste(b)
	}
}

// TestTheLesson pastes docs/lesson.md into a shell. It starts what it needs by itself, and kills it.
func TestTheLesson(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits until an object falls asleep, 10 s")
	}
	t.Parallel()
	s := newShell(t, freePort(t), freePort(t))
	if out, err := exec.Command("go", "build", "-o", filepath.Join(s.dir, "bin", "stateless"), "../docs/lesson").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, b := range s.blocks("docs/lesson.md") {
		s.paste(b)
	}
}

// TestTheReadmesOfTheExamples pastes what each of them says into a shell, but for the limiter's, where a second later there
// is one more token, and that of the orders, which wants four terminals: its own test starts what it starts.
func TestTheReadmesOfTheExamples(t *testing.T) {
	t.Parallel()
	p := newDev(t).begin()
	pages, err := filepath.Glob("../examples/*/README.md")
	must(t, err)
	s := newShell(t, p.http, p.nats)
	for _, page := range pages {
		if strings.Contains(page, "/limiter/") || strings.Contains(page, "/orders/") {
			continue
		}
		for _, b := range s.blocks(strings.TrimPrefix(page, "../")) {
			s.paste(b)
		}
	}
}

// TestTheCodeOfThePagesIsThatOfTheFiles: the code that is shown is the code that runs.
func TestTheCodeOfThePagesIsThatOfTheFiles(t *testing.T) {
	const counter, stateless = "../examples/counter/counter.go", "../docs/lesson/stateless.go"
	for page, files := range map[string][]string{"../README.md": {counter}, "../docs/lesson.md": {stateless, counter}} {
		text, err := os.ReadFile(page)
		must(t, err)
		blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(text, -1)
		if len(blocks) != len(files) {
			t.Fatalf("%s: %d blocks of code for %v", page, len(blocks), files)
		}
		for i, block := range blocks {
			file, err := os.ReadFile(files[i])
			must(t, err)
			for line := range strings.Lines(string(block[1])) {
				if !strings.Contains(string(file), strings.TrimRight(line, "\n")) {
					t.Errorf("%s: %s does not have: %s", page, files[i], line)
				}
			}
		}
	}
}

// block is a block of commands of a page.
type block struct {
	page   string
	before string // the text between the block before and this one
	lines  []string
}

// shell is a POSIX shell into which pages are pasted, in a folder of its own.
type shell struct {
	t      testing.TB
	dir    string
	here   *strings.Replacer // what the pages say, to what it is in this test
	in     io.Writer
	out    *bufio.Reader
	stderr *bytes.Buffer
}

// shellTime is how long a shell may take for all that is pasted into it.
const shellTime = 2 * time.Minute

// newShell starts a shell, which ends with the test and takes with it what it has started. What pages say of the ports of
// `perdure dev` is replaced by those addresses.
func newShell(t testing.TB, httpAddress, natsAddress string) *shell {
	t.Helper()
	path, err := binary()
	must(t, err)
	self, err := os.Executable()
	must(t, err)
	s := &shell{t: t, dir: t.TempDir(), stderr: new(bytes.Buffer)}
	bin := filepath.Join(s.dir, "bin")
	must(t, os.Mkdir(bin, 0o755))
	must(t, os.Symlink(path, filepath.Join(bin, "perdure")))
	must(t, os.Symlink(self, filepath.Join(bin, natsCommand)))
	s.here = strings.NewReplacer("bin/perdure dev", "bin/perdure dev --listen "+httpAddress+" --nats-listen "+natsAddress,
		"localhost:8080", httpAddress, "localhost:8081", freePort(t), "localhost:8082", freePort(t))

	ctx, cancel := context.WithTimeout(context.Background(), shellTime)
	c := exec.CommandContext(ctx, "sh")
	c.Dir = s.dir
	c.Env = append(os.Environ(), "NATS_URL=nats://"+natsAddress, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	c.Stderr = s.stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	s.in, err = c.StdinPipe()
	must(t, err)
	out, err := c.StdoutPipe()
	must(t, err)
	s.out = bufio.NewReader(out)
	must(t, c.Start())
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // it was killed
		checkRaces(t, s.stderr.String())
	})
	return s
}

// blocks are those of a page, which has some.
func (s *shell) blocks(page string) (list []block) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	must(s.t, err)
	before := 0
	for _, at := range regexp.MustCompile("(?s)```sh\n(.*?)\n```").FindAllSubmatchIndex(text, -1) {
		list = append(list, block{page, string(text[before:at[0]]), strings.Split(string(text[at[2]:at[3]]), "\n")})
		before = at[1]
	}
	if len(list) == 0 {
		s.t.Fatalf("%s has no commands", page)
	}
	return list
}

// paste runs a block. Each of its lines succeeds and prints what the lines "# => " behind it say, in their order, where …
// stands for anything. Building is for the reader, and so is a test, which has to be there.
func (s *shell) paste(b block) {
	s.t.Helper()
	for i, line := range b.lines {
		if test, ok := strings.CutPrefix(line, "go test -run "); ok {
			s.hasTest(b.page, test)
		}
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, "go ") {
			continue
		}
		var wants []string
		for _, after := range b.lines[i+1:] {
			want, ok := strings.CutPrefix(after, "# => ")
			if !ok {
				break
			}
			wants = append(wants, strings.ReplaceAll(regexp.QuoteMeta(want), "…", `[^\n]*`))
		}
		switch out, err := s.run(s.here.Replace(line)); {
		case err != nil:
			s.t.Fatalf("%s: %s: %v: %s\n%s", b.page, line, err, out, s.stderr)
		case !regexp.MustCompile("(?s)" + strings.Join(wants, ".*")).MatchString(out):
			s.t.Errorf("%s: %s\nprints %s\nwant   %s", b.page, line, out, strings.Join(wants, "\n       "))
		}
	}
}

// hasTest wants the package to have a test whose name begins so.
func (s *shell) hasTest(page, nameAndPackage string) {
	s.t.Helper()
	name, dir, _ := strings.Cut(nameAndPackage, " ")
	files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	must(s.t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(s.t, err)
		if strings.Contains(string(text), "\nfunc "+name) {
			return
		}
	}
	s.t.Errorf("%s: there is no test %s in %s", page, name, dir)
}

// endOfLine is what the shell prints behind what a line printed.
const endOfLine = "perdure-end-of-line"

func (s *shell) run(line string) (string, error) {
	if _, err := fmt.Fprintf(s.in, "%s\nprintf '\\n%s %%d\\n' $?\n", line, endOfLine); err != nil {
		return "", err
	}
	for out := ""; ; {
		got, err := s.out.ReadString('\n')
		if err != nil {
			return out, fmt.Errorf("the shell ended: %w", err)
		}
		if code, ok := strings.CutPrefix(got, endOfLine); ok {
			if code = strings.TrimSpace(code); code != "0" {
				return out, fmt.Errorf("exit code %s", code)
			}
			return out, nil
		}
		out += got
	}
}

// natsCommand is the name under which the test's own program is what pages take from the NATS command line: nats req --raw.
const natsCommand = "nats"

func natsReq(args []string) error {
	var words []string
	header := nats.Header{}
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "--raw":
		case "-H":
			i++
			name, value, _ := strings.Cut(args[i], ":")
			header.Set(name, strings.TrimSpace(value))
		default:
			words = append(words, args[i])
		}
	}
	if len(words) != 3 || words[0] != "req" {
		return fmt.Errorf("this is not the whole NATS command line: %q", args)
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		return err
	}
	defer nc.Close()
	reply, err := nc.RequestMsg(&nats.Msg{Subject: words[1], Data: []byte(words[2]), Header: header}, 10*time.Second)
	if err == nil {
		_, err = fmt.Printf("%s\n", reply.Data)
	}
	return err
}
