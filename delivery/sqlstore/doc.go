// Package sqlstore keeps records in a SQL database: SQLite or PostgreSQL.
package sqlstore
