package delivery

import (
	"context"
	"log/slog"
)

// logQueued tells of each of a batch that the transport has confirmed: those without
// an error. A nil errs has none.
func logQueued(ctx context.Context, logger *slog.Logger, batch []Envelope, errs []error) {
	if !logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	for i := range batch {
		if errs == nil || errs[i] == nil {
			logger.LogAttrs(ctx, slog.LevelInfo, "message queued", slog.String("message_id", batch[i].ID),
				slog.String("priority", batch[i].Priority.String()), slog.Int("attempt", batch[i].Attempt+1))
		}
	}
}
