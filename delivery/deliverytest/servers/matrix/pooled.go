package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/esh3artech/barid/delivery/deliverytest/servers"
)

// pooledPostgres is a PostgreSQL behind a PgBouncer in transaction mode.
type pooledPostgres struct {
	postgres *servers.Postgres
	pooler   *servers.PgBouncer
	url      string
}

func startPooledPostgres(ctx context.Context) (*pooledPostgres, error) {
	postgres, err := servers.NewPostgres(ctx, servers.PostgresConfig{NoSync: true})
	if err != nil {
		return nil, err
	}
	pooler, err := servers.NewPgBouncer(ctx, servers.PgBouncerConfig{PostgresPort: postgres.Port()})
	if err != nil {
		return nil, errors.Join(err, postgres.Close())
	}
	return &pooledPostgres{postgres: postgres, pooler: pooler, url: pooler.URL()}, nil
}

func (p *pooledPostgres) close() {
	if err := errors.Join(p.pooler.Close(), p.postgres.Close()); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
	}
}
