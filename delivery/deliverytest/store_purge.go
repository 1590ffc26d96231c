package deliverytest

import (
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
