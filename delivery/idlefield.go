package delivery

import (
	"context"
	"log/slog"
)

// idleField is a field of a config that is set in vain while another one is not. That
// is no error: a host may switch a part off and leave its fields for when it is on
// again. Yet nobody should believe in what is not done.
type idleField struct {
	name    string
	without string // the field that it needs, and how
	idle    bool
}

// warnOfIdle tells which fields of a config have no effect.
func warnOfIdle(logger *slog.Logger, fields []idleField) {
	for _, field := range fields {
		if field.idle {
			logger.LogAttrs(context.Background(), slog.LevelWarn, "config field has no effect",
				slog.String("field", field.name), slog.String("want", field.without))
		}
	}
}
