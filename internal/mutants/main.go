// Mutants breaks the program on purpose, one line at a time, and looks whether the tests see it: first the simulation,
// and where that cannot, a test that the variant names. A variant that nothing sees fails, and so does one whose line is
// not there any more. Nothing in the tree is changed: the broken file is an overlay of the go command.
//
//	go run ./internal/mutants [-n stories] [-only text] [-part k/n]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	seeds := flag.Int("n", 5000, "stories of the simulation for each variant")
	only := flag.String("only", "", "variants whose name has this in it")
	part := flag.String("part", "1/1", "k/n: every n-th variant, from the k-th on")
	flag.Parse()
	var k, n int
	if _, err := fmt.Sscanf(*part, "%d/%d", &k, &n); err != nil || n < 1 || k < 1 || k > n {
		fatal(fmt.Errorf("-part is %q; want k/n, with k from 1 to n", *part))
	}
	began := time.Now()
	dir, err := os.MkdirTemp("", "perdure-mutants")
	if err != nil {
		fatal(err)
	}
	missed := 0
	fmt.Println("| variant | breaks | seen by | after |\n| --- | --- | --- | --- |")
	for i, v := range variants {
		if !strings.Contains(v.name, *only) || i%n != k-1 {
			continue
		}
		began := time.Now()
		by, err := v.seenBy(filepath.Join(dir, fmt.Sprint(i)), *seeds)
		if err != nil {
			_ = os.RemoveAll(dir)
			fatal(fmt.Errorf("%s: %w", v.name, err))
		}
		if by == "" {
			by = "**nothing**"
			missed++
		}
		fmt.Printf("| %s | %s | %s | %v |\n", v.name, v.property, by, time.Since(began).Round(time.Second))
	}
	_ = os.RemoveAll(dir)
	fmt.Fprintln(os.Stderr, "in", time.Since(began).Round(time.Second))
	if missed > 0 {
		fatal(fmt.Errorf("%d variants are seen by nothing", missed))
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(1)
}

// seenBy builds the tests with the broken file and says which of them sees it; empty: none.
func (v *variant) seenBy(dir string, seeds int) (string, error) {
	overlay, err := v.overlay(dir)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(v.file, "engine/") || strings.HasPrefix(v.file, "journal/") {
		if by, err := v.simulated(dir, overlay, seeds); by != "" || err != nil {
			return by, err
		}
	}
	if v.other == "" {
		return "", nil
	}
	pkg, test, _ := strings.Cut(v.other, " ")
	out, err := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-run", "^"+test+"$", pkg).CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("--- FAIL: "+test)) {
		return fmt.Sprintf("`%s`: %s", test, v.why), nil
	}
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return "", nil
}

// simulated tells the simulation's stories with the broken file.
func (v *variant) simulated(dir, overlay string, seeds int) (string, error) {
	binary := filepath.Join(dir, "engine.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, "./engine").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if v.other != "" {
		seeds = min(seeds, 300) // it may have come to see it
	}
	run := exec.CommandContext(ctx, binary, "-test.run=^TestSimulation$")
	run.Dir, run.Env = "engine", append(os.Environ(), fmt.Sprint("N=", seeds), "SIM_QUICK=1")
	out, err := run.CombinedOutput()
	_ = os.Remove(binary)
	if err != nil {
		return "simulation, " + summary(out), nil
	}
	return "", nil
}

var seedLine = regexp.MustCompile(`seed (\d+): (I\d)`)

// summary is which seed of the simulation saw which property fail.
func summary(out []byte) string {
	if m := seedLine.FindSubmatch(out); m != nil {
		return fmt.Sprintf("seed %s, %s", m[1], m[2])
	}
	if m := regexp.MustCompile(`told seed (\d+) failed`).FindSubmatch(out); m != nil {
		return fmt.Sprintf("seed %s, which does not end well", m[1])
	}
	return "which does not run"
}

// overlay writes the broken file, and what tells the go command to take it.
func (v *variant) overlay(dir string) (string, error) {
	whole, err := os.ReadFile(v.file)
	if err != nil {
		return "", fmt.Errorf("run it at the root of the repository: %w", err)
	}
	if n := strings.Count(string(whole), v.old); n != 1 {
		return "", fmt.Errorf("its line is in %s %d times; want once:\n%s", v.file, n, v.old)
	}
	at, err := filepath.Abs(v.file)
	if err != nil {
		return "", err
	}
	broken := filepath.Join(dir, filepath.Base(v.file))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {at: broken}})
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(broken, []byte(strings.Replace(string(whole), v.old, v.new, 1)), 0o644); err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, overlay, 0o644)
}
