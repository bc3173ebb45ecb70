-- Role of the reporter: may read all tables, including those of later migrations, and may write nothing.
-- Run as the role that owns the schema: psql -v password=… -f reporter-role.sql
CREATE ROLE ess_reporter LOGIN PASSWORD :'password';
ALTER ROLE ess_reporter SET default_transaction_read_only = on;
GRANT USAGE ON SCHEMA public TO ess_reporter;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ess_reporter;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO ess_reporter;
