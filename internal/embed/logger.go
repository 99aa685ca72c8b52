package embed

import (
	"fmt"
	"log/slog"
	"sync"
)

// logger passes on what the server logs. A server that cannot start reports that as fatal to its logger, and only
// there, and returns as if nothing were: so the first such message is kept.
type logger struct {
	to *slog.Logger

	mu    sync.Mutex
	first error // guarded by mu
}

func (l *logger) Noticef(format string, v ...any) { l.to.Debug(fmt.Sprintf(format, v...)) }
func (l *logger) Warnf(format string, v ...any)   { l.to.Warn(fmt.Sprintf(format, v...)) }
func (l *logger) Errorf(format string, v ...any)  { l.to.Error(fmt.Sprintf(format, v...)) }
func (l *logger) Debugf(format string, v ...any)  {}
func (l *logger) Tracef(format string, v ...any)  {}

func (l *logger) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = fmt.Errorf(format, v...)
	}
}

// fatal is the first fatal message, nil if there was none.
func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}
