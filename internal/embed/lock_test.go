package embed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// childDir is the environment variable that makes this test binary another process on the data folder it names.
const childDir = "PERDURE_EMBED_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child locks the folder, stores a message, says so, and holds everything until it is killed or its parent is gone.
func child(dir string) error {
	ctx := context.Background()
	if _, err := LockDir(dir); err != nil {
		return err
	}
	s, err := Start(Options{Dir: filepath.Join(dir, "nats")})
	if err != nil {
		return err
	}
	nc, err := nats.Connect("", s.InProcess())
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "kept", Subjects: []string{"kept.>"}}); err != nil {
		return err
	}
	if _, err := js.Publish(ctx, "kept.a", []byte("before the kill")); err != nil {
		return err
	}
	fmt.Println("stored")
	_, err = os.Stdin.Read(make([]byte, 1))
	return err
}

func TestSecondLockIsRefusedUntilTheFirstIsClosed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkLocked(t, dir, os.Getpid())
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := LockDir(dir)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestKilledProcessLeavesTheLockFreeAndTheMessagesStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	if _, err := cmd.StdinPipe(); err != nil { // closes with this process, so that the child ends too
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if said != "stored\n" {
		_ = cmd.Process.Kill()
		t.Fatalf("the child said %q, %v", said, err)
	}
	checkLocked(t, dir, cmd.Process.Pid)

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // reports the kill
	lock, err := LockDir(dir)
	if err != nil {
		t.Fatalf("after the holder's death: %v", err)
	}
	defer lock.Close()
	if got := kept(t, start(t, Options{Dir: filepath.Join(dir, "nats")}), 1); got != "before the kill" {
		t.Errorf("the message is %q", got)
	}
}

// checkLocked checks that the folder cannot be locked, and that the error says whose it is.
func checkLocked(t *testing.T, dir string, pid int) {
	t.Helper()
	_, err := LockDir(dir)
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("LockDir on a locked folder returned %v, want ErrLocked", err)
	}
	for _, want := range []string{dir, strconv.Itoa(pid)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error %q does not contain %s", err, want)
		}
	}
}
