// Package doctor finds what is set up in a way that costs data or speed, and says how to mend it. [Gather] asks a running
// system, [ReadFolder] looks at a data folder; both change nothing but a file that ReadFolder writes and removes. What they
// found is [Facts], plain values, and the checks judge them: [Examine], [ExamineFolder].
package doctor
