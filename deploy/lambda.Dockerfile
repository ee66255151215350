# Keyturn on AWS Lambda: its image, and the Lambda Web Adapter before it. Build that one first:
#   docker build -t keyturn . && docker build -t keyturn-lambda -f deploy/lambda.Dockerfile .
FROM keyturn
COPY --from=public.ecr.aws/awsguru/aws-lambda-adapter:1.0.0 /lambda-adapter /opt/extensions/lambda-adapter
# Only the adapter comes here, and one request at a time; it brings X-Forwarded-For along.
ENV AWS_LWA_INVOKE_MODE=response_stream AWS_LWA_HOST=127.0.0.1 AWS_LWA_PORT=8000 \
    AWS_LWA_READINESS_CHECK_PATH=/healthz \
    HOST=127.0.0.1 TRUSTED_PROXIES=127.0.0.1
