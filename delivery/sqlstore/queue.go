package sqlstore

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/esh3artech/barid/delivery"
)

// adoptChunk is how many records get their queue in one transaction, so that
// other callers do not wait long.
const adoptChunk = 1000

// adopt gives config.Queue to the records from before records had a queue. When
// there are some, and nobody says which queue they belong to, it fails: to guess
// would send mail to sms.
func adopt(ctx context.Context, db *sql.DB, d *dialect, tables string, config Config) error {
	table := tables + "progress"
	if config.Queue == "" {
		return withTimeout(ctx, config.Timeout, "looking for records without a queue", func(ctx context.Context) error {
			var found int
			err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM ("+queueless(table, 1)+") AS one").Scan(&found)
			if err == nil && found > 0 {
				return fmt.Errorf("%w: Queue is empty, but table %s has records from before records had a queue: set Queue to the name of theirs", ErrConfig, table)
			}
			return asDatabaseError(ctx, "looking for records without a queue", err, nil)
		})
	}
	// Rows are locked in the order of IDs, as updates do.
	text := fmt.Sprintf("UPDATE %s SET queue = %s WHERE id IN (%s%s)", table, d.param(1), queueless(table, adoptChunk), d.rowLocks)
	for {
		var adopted int64
		err := withTimeout(ctx, config.Timeout, "giving records a queue", func(ctx context.Context) error {
			result, err := db.ExecContext(ctx, text, []byte(config.Queue))
			if err == nil {
				adopted, err = result.RowsAffected()
			}
			return asDatabaseError(ctx, "giving records a queue", err, nil)
		})
		if err != nil || adopted < adoptChunk {
			return err
		}
	}
}

// queueless finds records without a queue, which have an index that is empty once
// they have one.
func queueless(table string, limit int) string {
	return fmt.Sprintf("SELECT id FROM %s WHERE queue IS NULL ORDER BY id LIMIT %d", table, limit)
}

// checkQueue returns why a queue can't be stored, or nil.
func checkQueue(field, queue string) error {
	if len(queue) > maxIndexedBytes {
		return &delivery.TooLargeError{Field: field, Size: len(queue), Limit: maxIndexedBytes}
	}
	return nil
}
