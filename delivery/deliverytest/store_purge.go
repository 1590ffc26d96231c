package deliverytest

import (
	"errors"
	"slices"
	"time"

	"github.com/esh3artech/barid/delivery"
)

// purges deletes what ended before a time, up to a limit, and nothing else.
func purges(t *storeSubtest) {
	var kept, settled []delivery.Record
	i := 0
	for _, status := range delivery.Statuses() {
		for age := range 3 {
			record := plainRecord(i)
			record.Status, record.UpdatedAt = status, after(1000+age)
			i++
			switch {
			case !status.Final() && status != delivery.StatusFailed:
				kept = append(kept, record)
			default:
				settled = append(settled, record)
			}
		}
	}
	t.save(append(append([]delivery.Record{}, kept...), settled...)...)
	t.checkPurge(after(1000), 100, 0)
	t.checkPurge(after(5000), 0, 0)
	t.checkRecords(settled...)
	// Of each status that has ended, the records that changed last at 1000 and 1001 go.
	ended := len(settled) / 3
	t.checkPurge(after(1002), 3, 3)
	t.checkPurge(after(1002), 100, 2*ended-3)
	t.checkPurge(after(1002), 100, 0)
	var left []delivery.Record
	for _, record := range settled {
		if record.UpdatedAt.Equal(after(1002)) {
			left = append(left, record)
			continue
		}
		t.checkMissing(record.ID)
	}
	t.checkRecords(left...)
	t.checkRecords(kept...)
	t.checkStats(statsOf(append(left, kept...)))

	// A record that changes counts from then on, and a purged ID can be saved again.
	touched := left[0]
	if touched.Status != delivery.StatusDelivered {
		t.Fatalf("the first that is left is %s", touched.Status)
	}
	t.update(delivery.Update{ID: touched.ID, Status: delivery.StatusRead, Acknowledged: true, At: after(2000)})
	t.checkPurge(after(2000), 100, ended-1)
	t.checkPurge(after(2000).Add(time.Microsecond), 100, 1)
	t.save(touched)
	t.checkRecords(touched)
	t.checkRecords(kept...)
	if ids := idsOf(t.listAll(delivery.RecordQuery{Limit: 2}, nil)); len(ids) != len(kept)+1 {
		t.Errorf("List after a purge: %q", ids)
	}
}

// purgesByQueue checks that a purge deletes the records of its own queue only,
// those first that were changed first, and whatever else there is of others.
func purgesByQueue(t *storeSubtest) {
	queues := []string{"mail", "sms", "SMS", "sms ", "s%", "письмо\x00\xff"}
	records := make([]delivery.Record, 0, 5*len(queues)+1)
	for i := range 5 * len(queues) {
		record := plainRecord(i)
		record.Queue, record.Status, record.UpdatedAt = queues[i%len(queues)], delivery.StatusDelivered, after(1000-i)
		records = append(records, record)
	}
	awaited := plainRecord(len(records))
	awaited.Queue, awaited.Status, awaited.UpdatedAt = "sms", delivery.StatusSent, after(1)
	t.save(append(records, awaited)...)
	if n, err := t.store.Purge(t.Context(), "", after(5000), 100); n != 0 || !errors.Is(err, delivery.ErrInvalid) {
		t.Errorf("Purge without a queue: %d, %v, want ErrInvalid", n, err)
	}
	t.checkPurgeOf("nobody's", after(5000), 100, 0)
	t.checkRecords(records...)
	t.checkPurgeOf("sms", after(5000), 2, 2)
	t.checkMissing(records[25].ID, records[19].ID)
	t.checkPurgeOf("письмо\x00\xff", after(5000), 100, 5)
	left := slices.DeleteFunc(records, func(record delivery.Record) bool {
		return record.Queue == queues[5] || record.ID == records[25].ID || record.ID == records[19].ID
	})
	t.checkRecords(append(left, awaited)...)
	t.checkPurgeOf("sms", after(5000), 100, 3)
	t.checkStatsOf("sms", statsOf([]delivery.Record{awaited}))
	t.checkStatsOf("SMS", statsOf(slices.DeleteFunc(slices.Clone(left), func(r delivery.Record) bool { return r.Queue != "SMS" })))
}
