package drill

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
	"time"
)

// chart draws the time line as SVG: panels below each other over one axis of time.
type chart struct {
	strings.Builder
	seconds float64
	y       float64 // where the next panel begins
}

// Measures of the drawing, in its own units.
const (
	chartWidth  = 1000.0
	chartLeft   = 76.0
	chartRight  = 988.0
	panelHeight = 120.0
	panelGap    = 34.0
	headHeight  = 26.0 // for the numbers of the disturbances
	axisHeight  = 26.0
	bandsHeight = 420.0 // of all partitions together, at most
	bandHeight  = 20.0
	columnsMax  = 456
	hues        = 8 // of workers
)

// Chart is the time line as SVG.
func (r *Result) Chart() template.HTML {
	c := &chart{seconds: max(r.Seconds, 0.1), y: headHeight}
	columns, width := columns(r.Timeline)
	workers := r.Workers()
	c.answers(columns, width)
	c.failures(columns, width)
	c.latencies(columns, width)
	c.owners(r, workers)
	height := c.y + axisHeight
	c.axis()
	head := fmt.Sprintf(`<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="Time line: answers, failed tries, latency, and the owner of each partition">`, chartWidth, height)
	return template.HTML(head + c.disturbances(r.Disturbances) + c.String() + "</svg>") // all that is drawn is numbers, or escaped
}

// columns joins buckets so that they can be drawn, and says how long one is.
func columns(buckets []Bucket) ([]Bucket, time.Duration) {
	join := max((len(buckets)+columnsMax-1)/columnsMax, 1)
	var joined []Bucket
	for part := range slices.Chunk(buckets, join) {
		var sum Bucket
		for _, b := range part {
			sum.Answers += b.Answers
			sum.Failures += b.Failures
			sum.P50, sum.P99, sum.Max = max(sum.P50, b.P50), max(sum.P99, b.P99), max(sum.Max, b.Max)
		}
		joined = append(joined, sum)
	}
	return joined, time.Duration(join) * BucketWidth
}

func (c *chart) x(seconds float64) float64 {
	return chartLeft + (chartRight-chartLeft)*min(max(seconds, 0), c.seconds)/c.seconds
}

func (c *chart) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

func (c *chart) text(class string, x, y float64, text string) {
	c.add(`<text class="%s" x="%.1f" y="%.1f">%s</text>`, class, x, y, html.EscapeString(text))
}

// panel begins a panel with lines at some values. place says where a value is, from 0 to 1.
func (c *chart) panel(title string, height float64, ticks []float64, place func(float64) float64, name func(float64) string) (y func(float64) float64) {
	top := c.y + panelGap/2
	c.text("title", chartLeft, top-5, title)
	y = func(v float64) float64 { return top + height*(1-min(max(place(v), 0), 1)) }
	for _, tick := range ticks {
		c.add(`<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, chartLeft, y(tick), chartRight, y(tick))
		c.text("tick", chartLeft-8, y(tick)+3.5, name(tick))
	}
	c.y = top + height + panelGap/2
	return y
}

// area draws values as steps over a base line.
func (c *chart) area(class string, values []float64, width time.Duration, y func(float64) float64) {
	var path strings.Builder
	fmt.Fprintf(&path, "M%.1f %.1f", c.x(0), y(0))
	for i, v := range values {
		from, to := c.x(float64(i)*width.Seconds()), c.x(float64(i+1)*width.Seconds())
		fmt.Fprintf(&path, "L%.1f %.1fL%.1f %.1f", from, y(v), to, y(v))
	}
	fmt.Fprintf(&path, "L%.1f %.1fZ", c.x(float64(len(values))*width.Seconds()), y(0))
	c.add(`<path class="%s" d="%s"/>`, class, path.String())
}

// line draws values as points that are joined, with gaps where there are none.
func (c *chart) line(class string, values []float64, width time.Duration, y func(float64) float64) {
	var path strings.Builder
	pen := "M"
	for i, v := range values {
		if v <= 0 {
			pen = "M"
			continue
		}
		x := c.x((float64(i) + 0.5) * width.Seconds())
		fmt.Fprintf(&path, "%s%.1f %.1f", pen, x, y(v))
		if pen == "M" {
			fmt.Fprintf(&path, "h0.01") // one alone is a point
		}
		pen = "L"
	}
	if path.Len() > 0 {
		c.add(`<path class="%s" d="%s"/>`, class, path.String())
	}
}

// rates are the columns as events per second, and a round number above all.
func rates(columns []Bucket, width time.Duration, of func(Bucket) int) (values []float64, top float64) {
	for _, b := range columns {
		values = append(values, float64(of(b))/width.Seconds())
	}
	return values, roundUp(slices.Max(append(values, 1)))
}

// roundUp is 1, 2 or 5 times a power of ten.
func roundUp(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= v {
			return f * power
		}
	}
	return 10 * power
}

func count(v float64) string { return fmt.Sprintf("%.0f", v) }

func (c *chart) answers(columns []Bucket, width time.Duration) {
	values, top := rates(columns, width, func(b Bucket) int { return b.Answers })
	y := c.panel("Answers per second", panelHeight, []float64{0, top / 2, top}, func(v float64) float64 { return v / top }, count)
	c.area("answers", values, width, y)
}

func (c *chart) failures(columns []Bucket, width time.Duration) {
	values, top := rates(columns, width, func(b Bucket) int { return b.Failures })
	y := c.panel("Failed tries per second (our client repeats them)", panelHeight/2, []float64{0, top}, func(v float64) float64 { return v / top }, count)
	c.area("failures", values, width, y)
}

// latencies are over a logarithmic scale.
func (c *chart) latencies(columns []Bucket, width time.Duration) {
	value := func(of func(Bucket) time.Duration) (values []float64) {
		for _, b := range columns {
			values = append(values, of(b).Seconds()*1000)
		}
		return values
	}
	longest := value(func(b Bucket) time.Duration { return b.Max })
	low, high := 1.0, max(math.Pow(10, math.Ceil(math.Log10(slices.Max(append(longest, 10))))), 10)
	for _, b := range columns {
		if ms := b.P50.Seconds() * 1000; ms > 0 && ms < low {
			low = 0.1
		}
	}
	var ticks []float64
	for t := low; t <= high*1.01; t *= 10 {
		ticks = append(ticks, t)
	}
	place := func(v float64) float64 { return math.Log10(max(v, low)/low) / math.Log10(high/low) }
	name := func(v float64) string {
		if v >= 1000 {
			return fmt.Sprintf("%g s", v/1000)
		}
		return fmt.Sprintf("%.2g ms", v)
	}
	y := c.panel("Latency of answered calls, from the first try on: p50, p99, longest", panelHeight, ticks, place, func(v float64) string {
		if v == 100 { // %.2g would make it a power
			return "100 ms"
		}
		return name(v)
	})
	c.line("longest", longest, width, y)
	c.line("p99", value(func(b Bucket) time.Duration { return b.P99 }), width, y)
	c.line("p50", value(func(b Bucket) time.Duration { return b.P50 }), width, y)
}

// owners draws a band for each partition, in the colour of its owner.
func (c *chart) owners(r *Result, workers []string) {
	height := min(bandHeight, bandsHeight/float64(max(r.Partitions, 1)))
	top := c.y + panelGap/2
	c.text("title", chartLeft, top-5, "Owner of each partition, as the journal has it; a stroke is a new epoch")
	for p := range r.Partitions {
		if height >= 9 || p%4 == 0 {
			c.text("tick", chartLeft-8, top+height*(float64(p)+0.5)+3.5, fmt.Sprint(p))
		}
		c.add(`<rect class="nobody" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, chartLeft, top+height*float64(p), chartRight-chartLeft, height-1)
	}
	for _, o := range r.Owners {
		y := top + height*float64(o.Partition)
		from, to := c.x(float64(o.From)/1000), c.x(float64(o.To)/1000)
		c.add(`<rect class="w%d" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>partition %d, epoch %d: %s, %s to %s</title></rect>`,
			slices.Index(workers, o.Worker)%hues, from, y, max(to-from, 0.5), height-1, o.Partition, o.Epoch, html.EscapeString(o.Worker), o.From, o.To)
		if o.From > 0 {
			c.add(`<line class="epoch" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, from, y, from, y+height-1)
		}
		if name := short(o.Worker); height >= 12 && to-from > 7*float64(len(name))+8 {
			c.text("band", from+5, y+height/2+3, name)
		}
	}
	c.y = top + height*float64(r.Partitions) + panelGap/4
}

// short is a worker's name where there is little room.
func short(name string) string {
	if len(name) > 12 {
		return name[:12]
	}
	return name
}

// axis is the axis of time, below all panels.
func (c *chart) axis() {
	step := roundUp(c.seconds / 12)
	for t := 0.0; t <= c.seconds; t += step {
		c.add(`<line class="grid" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, c.x(t), c.y, c.x(t), c.y+4)
		c.text("time", c.x(t), c.y+17, fmt.Sprintf("%g s", math.Round(t*100)/100))
	}
}

// disturbances are lines through all panels, and bands for as long as the target was down. They lie behind the panels.
func (c *chart) disturbances(all []*Disturbance) string {
	c2 := &chart{seconds: c.seconds}
	last := math.Inf(-1)
	for i, d := range all {
		at := float64(d.At) / 1000
		from, to := c.x(at), c.x(at+float64(d.Long)/1000)
		c2.add(`<rect class="down" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`, from, headHeight, to-from, c.y-headHeight)
		c2.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"><title>%d: %s %s</title></line>`, d.Act, from, headHeight-8, from, c.y, i+1, d.Act, html.EscapeString(d.Target.String()))
		if from-last >= 18 { // else they would cover each other
			c2.text("number", from, headHeight-12, fmt.Sprint(i+1))
			last = from
		}
	}
	return c2.String()
}

// Workers are the names of those who owned something, in order.
func (r *Result) Workers() (names []string) {
	for _, o := range r.Owners {
		names = append(names, o.Worker)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
