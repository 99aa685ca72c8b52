package bench

import "fmt"

// rows are all figures, in the order of the table.
func rows(o Options) []row {
	n := fmt.Sprintf("%s objects", Number(float64(o.Objects)))
	callers := fmt.Sprintf("%d callers", o.Callers)
	rate := func(name, what, against string, goal Goal, figure, yardstick side) row {
		figure.callers, yardstick.callers = o.Callers, o.Callers
		return natsRow(Row{Name: name, What: what, Unit: "calls/s", Against: against, Goal: goal}, figure, yardstick, Load.Rate)
	}
	list := []row{
		rate("hot-relaxed", "one hot object, "+callers+", relaxed sync", "pipe, joined", Goal{RatioAbove, 0.6, 0.8},
			side{sync: relaxed, objects: 1, method: incrementMethod}, side{sync: relaxed, objects: 1, method: pipeJoined}),
		rate("many-relaxed", n+", "+callers+", relaxed sync", "pipe", Goal{RatioAbove, 0.5, 0.75},
			side{sync: relaxed, objects: o.Objects, method: incrementMethod}, side{sync: relaxed, objects: o.Objects, method: pipeSingle}),
		noteSync(rate("hot-always", "one hot object, "+callers+", sync always", "pipe, joined", Goal{RatioAbove, 0.5, 0.8},
			side{sync: always, objects: 1, method: incrementMethod}, side{sync: always, objects: 1, method: pipeJoined})),
		rate("many-always", n+", "+callers+", sync always", "pipe", Goal{},
			side{sync: always, objects: o.Objects, method: incrementMethod}, side{sync: always, objects: o.Objects, method: pipeSingle}),
		rate("many-always-relaxed", n+", "+callers+", sync always", "the same, relaxed", Goal{RatioAbove, 0.75, 0.9},
			side{sync: always, objects: o.Objects, method: incrementMethod}, side{sync: relaxed, objects: o.Objects, method: incrementMethod}),
		rate("reads", "reads of one object, "+callers, "request and reply", Goal{RatioAbove, 0.7, 0.9},
			side{sync: relaxed, objects: 1, method: valueMethod}, side{sync: relaxed, objects: 1, method: pipeEcho}),
	}
	for _, sync := range []string{relaxed, always} {
		word := syncWord(sync)
		list = append(list, natsRow(Row{Name: "single-" + word, What: "one caller, one object, p50, sync " + word, Unit: "µs", Against: "pipe", Goal: Goal{BeyondBelow, 30, 15}},
			side{sync, 1, incrementMethod, 1}, side{sync, 1, pipeSingle, 1}, p50))
	}
	for _, sync := range []string{relaxed, always} {
		goal := Goal{}
		if sync == relaxed {
			goal = Goal{Kind: RatioAbove, Proud: 0.5}
		}
		word, callers := syncWord(sync), fmt.Sprintf("HTTP, %d callers, sync %s", o.HTTPCallers, syncWord(sync))
		list = append(list,
			httpRow(Row{Name: "http-hot-" + word, What: "one hot object, " + callers, Unit: "calls/s", Against: "net/http", Goal: goal}, sync, 1, o.HTTPCallers),
			httpRow(Row{Name: "http-many-" + word, What: n + ", " + callers, Unit: "calls/s", Against: "net/http", Goal: goal}, sync, o.Objects, o.HTTPCallers))
	}
	for _, sync := range []string{relaxed, always} {
		word := syncWord(sync)
		what := fmt.Sprintf("messages applied, %d publishers, sync %s", o.Callers, word)
		list = append(list,
			sendRow(Row{Name: "send-hot-" + word, What: "one object, " + what, Unit: "messages/s", Against: "publishing alone"}, sync, 1, o.Callers),
			sendRow(Row{Name: "send-many-" + word, What: n + ", " + what, Unit: "messages/s", Against: "publishing alone"}, sync, o.Objects, o.Callers),
			row{Row{Name: "send-lag-" + word, What: "a message, from stored to its turn, p99, sync " + word, Unit: "µs"}, sendLag(sync)})
	}
	return append(list,
		insideRow(Row{Name: "inside", What: "one hot object, " + callers + " inside the process, sync always", Unit: "calls/s", Against: "pipe, joined", Goal: Goal{ValueAbove, 100_000, 300_000}},
			always, o.Callers),
		row{Row{Name: "wake-warm", What: "wake-up from the store, p99", Unit: "µs", Against: "awake", Goal: Goal{ValueBelow, 1000, 0}}, wakeWarm},
		row{Row{Name: "wake-cold", What: fmt.Sprintf("wake-up from %d records among %s, p99", coldRecords, Number(float64(coldRecords*o.coldObjects()))), Unit: "µs", Against: "awake",
			Goal: Goal{ValueBelow, 10_000, 0}}, wakeCold},
		row{Row{Name: "memory", What: "an idle object in memory beyond its own state", Unit: "B", Goal: Goal{ValueBelow, 1024, 300}}, idleMemory},
		row{Row{Name: "start", What: "start to the first answer", Unit: "ms", Against: "perdure version", Goal: Goal{ValueBelow, 150, 0}}, start},
		row{Row{Name: "restart", What: fmt.Sprintf("restart after kill -9 with %s objects", Number(float64(o.Restart))), Unit: "ms", Goal: Goal{ValueBelow, 2000, 0}}, restart},
		row{Row{Name: "drain", What: "a backlog of 100,000 messages to one object", Unit: "messages/s", Against: "publishing alone"}, drain(100_000, 1)},
		row{Row{Name: largeRow + "-drain-one", What: "a backlog of a million messages to one object", Unit: "messages/s", Against: "publishing alone"}, drain(1_000_000, 1)},
		row{Row{Name: largeRow + "-drain-all", What: "a backlog of a million messages to a million objects", Unit: "messages/s", Against: "publishing alone"}, drain(1_000_000, 1_000_000)},
		row{Row{Name: largeRow + "-million", What: "restart after kill -9 with a million objects, all in memory", Unit: "ms", Goal: Goal{ValueBelow, 2000, 0}}, large(1_000_000, 8<<10)},
		row{Row{Name: largeRow + "-names", What: "restart after kill -9 with ten million objects, few in memory", Unit: "ms"}, large(10_000_000, 256)},
	)
}

func syncWord(sync string) string {
	if sync == always {
		return "always"
	}
	return "relaxed"
}
