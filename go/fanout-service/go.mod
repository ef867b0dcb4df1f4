module rex/fanout-service

go 1.26
