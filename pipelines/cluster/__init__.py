"""Runs the compiled pipeline on a Kubeflow cluster: upload, start, follow to the end, tell.

The cluster comes from the environment:

==================== ==============================================================================
KFP_HOST             ``https://...`` of KFP's web page or API; or ``kubectl://NAMESPACE/SERVICE``
                     (``kubectl`` alone: ``kubectl://kubeflow/ml-pipeline-ui``), which is reached
                     by a port-forward with the kubeconfig in use
KFP_TOKEN_FILE       file that holds a bearer token; it is read anew for every request
KFP_TOKEN            the token itself. With neither, a pod uses its service account's token for KFP
KFP_CA_CERT          file of the certificate authorities to trust
KFP_NAMESPACE        namespace of the runs, where KFP has several users
KFP_SERVICE_ACCOUNT  account of the steps; empty: KFP's own
KFP_EXPERIMENT       the group of runs that KFP calls an experiment; empty: ``plsc``
==================== ==============================================================================
"""
