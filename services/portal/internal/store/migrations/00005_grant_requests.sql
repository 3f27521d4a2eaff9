-- What tenants ask those who run the gateway to be lent. They are no objects: nothing that is only asked
-- for is part of a bundle.

-- +goose Up
CREATE TABLE grant_requests (
    tenant     name_text NOT NULL,
    id         name_text NOT NULL,
    state      name_text NOT NULL,
    asked_at   bigint    NOT NULL,
    decided_at bigint    NOT NULL, -- 0: it is open
    document   text      NOT NULL,
    PRIMARY KEY (tenant, id)
);
-- For those who decide: the oldest first.
CREATE INDEX grant_requests_in_order ON grant_requests (asked_at, id);
CREATE INDEX grant_requests_by_state ON grant_requests (state, asked_at, id);

-- +goose Down
DROP TABLE grant_requests;
