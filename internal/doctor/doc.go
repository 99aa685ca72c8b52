// Package doctor finds what is set up in a way that costs data or speed, and says how to mend it. [Gather] asks a running
// system, [ReadFolder] looks at a data folder; neither makes or changes anything. What they found is plain values, [Facts]
// and [Folder], which the checks judge without asking anybody: [Examine], [ExamineFolder].
package doctor
