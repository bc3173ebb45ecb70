#!/bin/sh
# The image runs this once, when it creates the database.
set -eu
psql --set=ON_ERROR_STOP=1 --set=password="$(cat "$ESS_REPORTER_PASSWORD_FILE")" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file /etc/ess/reporter-role.sql
