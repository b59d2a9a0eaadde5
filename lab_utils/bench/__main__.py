import sys

from lab_utils.bench.run import main

sys.exit(main())
