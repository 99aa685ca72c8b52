package engine

import (
	"os"
	"testing"
)

var testDirs []string

// tempDir is a folder that is removed when all tests have run.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "perdure-engine")
	testDirs = append(testDirs, dir)
	return dir, err
}

func TestMain(m *testing.M) {
	code := m.Run()
	if len(testDirs) > 0 {
		if srv, err := realServer(); err == nil {
			srv.Shutdown()
		}
	}
	for _, dir := range testDirs {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}
