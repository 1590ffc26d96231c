package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver
	_ "modernc.org/sqlite"             // the driver

	"github.com/esh3artech/barid/delivery/sqlstore"
)

// postgresSettings keep checkpoints out of what is measured. Whatever is not named
// here has its default: every commit is synced.
func postgresSettings() []string {
	return []string{"shared_buffers=1GB", "max_wal_size=4GB", "checkpoint_timeout=30min"}
}

// withDatabase creates a fresh database on the PostgreSQL server for f, and
// deletes it at the end.
func withDatabase(ctx context.Context, server string, f func(url string) error) error {
	name := strings.ReplaceAll(unique(), "-", "_")
	if err := execute(ctx, server, "CREATE DATABASE "+name); err != nil {
		return err
	}
	fresh, err := url.Parse(server)
	if err == nil {
		fresh.Path = name
		err = f(fresh.String())
	}
	return errors.Join(err, execute(context.WithoutCancel(ctx), server, "DROP DATABASE "+name+" WITH (FORCE)"))
}

func execute(ctx context.Context, server, statement string) error {
	connection, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	_, err = connection.Exec(ctx, statement)
	return errors.Join(err, connection.Close(ctx))
}

// withFile makes a fresh SQLite file for f, whose every commit is synced, and
// deletes it at the end.
func withFile(f func(db *sql.DB) error) error {
	dir, err := os.MkdirTemp("", "barid-compare-")
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", sqlstore.SQLiteDSN(filepath.Join(dir, "compare.db")))
	if err == nil {
		err = errors.Join(f(db), db.Close())
	}
	return errors.Join(err, os.RemoveAll(dir))
}
