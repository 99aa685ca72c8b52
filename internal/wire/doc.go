// Package wire is the contract with other programs as pure functions: names and their escape, slots, subjects and
// headers. It imports the standard library only and keeps no state.
package wire
