//go:build race

package engine

// raceDetector makes tests that are about size smaller: everything takes ten times as long.
const raceDetector = true
