//go:build !linux

package embed

// Filesystem is the kind of filesystem that holds path; empty, since it is known on Linux only.
func Filesystem(string) string { return "" }
