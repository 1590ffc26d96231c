package idempotency

// AbilityOf returns store as a T, an interface with methods that not every Store has:
//
//	pinger, able := idempotency.AbilityOf[interface{ Ping(context.Context) error }](store)
//
// If store is no T itself and has the method
//
//	Unwrap() Store
//
// then it is asked of what Unwrap returns, and so on. So a wrapper that only counts or
// traces need not repeat methods that it does not know.
func AbilityOf[T any](store Store) (ability T, able bool) {
	for store != nil {
		if ability, able = store.(T); able {
			return ability, true
		}
		wrapper, wraps := store.(interface{ Unwrap() Store })
		if !wraps {
			break
		}
		store = wrapper.Unwrap()
	}
	return ability, false
}
