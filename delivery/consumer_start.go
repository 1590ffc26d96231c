package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/esh3artech/barid/retry"
)

// subscribe sees that the idempotency store is fit for use, and subscribes. It waits
// until both can be reached.
func (r *consumerRun) subscribe(ctx context.Context) error {
	if checker, able := abilityOf[Checker](r.config.Idempotency); able {
		unfit := func(err error) bool { return classify(&r.config.Classifier, err) != retry.ClassTransient }
		if err := reach(ctx, r.stages.keys, unfit, func() error { return checker.Check(ctx) }); err != nil {
			return fmt.Errorf("delivery: idempotency store: %w", err)
		}
	}
	transport := newDependency("transport", r.metrics.recorder, r.config.Logger)
	err := reach(ctx, transport, r.refusedForGood, func() (err error) {
		r.subscription, err = r.transport.Subscribe(ctx, SubscribeConfig{Prefetch: r.config.Prefetch})
		return err
	})
	if err != nil {
		return fmt.Errorf("delivery: subscribe: %w", err)
	}
	return nil
}

// refusedForGood says that a transport which fails to subscribe will do so again.
func (r *consumerRun) refusedForGood(err error) bool {
	for _, lasting := range []error{ErrClosed, ErrConfig, ErrInvalid, ErrUnsupported} {
		if errors.Is(err, lasting) {
			return true
		}
	}
	return classify(&r.config.Classifier, err) == retry.ClassPermanent
}

// reach calls try until it succeeds, fails for good, or ctx ends. At ctx's end the
// error has the last cause, too.
func reach(ctx context.Context, d *dependency, forGood func(error) bool, try func() error) error {
	for {
		err := guarded(try)
		if err == nil {
			d.answered(ctx)
			return nil
		}
		if ctx.Err() == nil {
			if forGood(err) {
				return err
			}
			d.failed(ctx, err)
			if retry.Wait(ctx.Done(), time.Until(d.over())) {
				continue
			}
		}
		if errors.Is(err, ctx.Err()) {
			return err
		}
		return errors.Join(ctx.Err(), err)
	}
}
