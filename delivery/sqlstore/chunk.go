package sqlstore

// chunkBySize returns where the chunk of n things that begins at from ends,
// given the bytes of each, and how large the chunk is.
func chunkBySize(from, n, rows int, bytes func(i int) int) (to int, amount size) {
	for to = from; to < n && amount.rows < rows; to++ {
		with := amount.plus(size{rows: 1, bytes: bytes(to)})
		if with.bytes > maxBytes && amount.rows > 0 {
			break
		}
		amount = with
	}
	return to, amount
}

// chunkByCount divides n things into chunks of at most so many.
func chunkByCount(n, rows int) func(from int) (to int, amount size) {
	return func(from int) (int, size) {
		to := min(from+rows, n)
		return to, size{rows: to - from}
	}
}

// eachChunk calls do for each chunk of n things, and joins the errors of the
// things. When do returns an error of the store as well, the remaining things
// get that error, and do is not called again. The result is nil when there were
// no errors.
func eachChunk(n int, next func(from int) (to int, amount size), do func(from, to int, amount size) ([]error, error)) []error {
	var all []error
	failed := false
	for from := 0; from < n; {
		to, amount := next(from)
		errs, err := do(from, to, amount)
		from = to
		if all == nil && to == n {
			all = errs
		} else {
			all = append(all, errs...)
		}
		for _, err := range errs {
			failed = failed || err != nil
		}
		if err != nil {
			for len(all) < n {
				all = append(all, err)
			}
			break
		}
	}
	if !failed {
		return nil
	}
	return all
}
