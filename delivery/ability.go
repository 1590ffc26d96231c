package delivery

import "github.com/esh3artech/barid/idempotency"

// abilityOf returns a part as a T, an interface that not every part of its kind has. A
// wrapper of an idempotency.Store, or of a Store, keeps the abilities of what it wraps
// if it has an Unwrap method that returns it.
func abilityOf[T any](part any) (ability T, able bool) {
	if keys, ok := part.(idempotency.Store); ok {
		return idempotency.AbilityOf[T](keys)
	}
	for part != nil {
		if ability, able = part.(T); able {
			return ability, true
		}
		wrapper, wraps := part.(interface{ Unwrap() Store })
		if !wraps {
			break
		}
		part = wrapper.Unwrap()
	}
	return ability, false
}
